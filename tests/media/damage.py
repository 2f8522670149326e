"""Offers as a careless sender or line would leave them."""

import re

from hypothesis import strategies as st


def damaged(data: st.DataObject, text: str) -> str:
    """Return a text of which one to four lines are dropped, repeated, cut or numbered anew."""
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "cut", "number"])):
            case "drop":
                del lines[where]
            case "repeat":
                lines.insert(where, lines[where])
            case "cut":
                lines[where] = lines[where][: data.draw(st.integers(0, 20))]
            case "number":
                number = str(data.draw(st.integers(0, 300)))
                lines[where] = re.sub("[0-9]+", number, lines[where], count=1)
    return "\n".join(lines)
