"""Slips in the messages that the seed prints (000, sections 3.1 and 3.1.2).

Documents are repaired only after plain parsing has failed; names that parse are looked up.
"""

import re

STATISTICS = {"cumpklost": "cumpktlost"}
"""Figures by the names that the seed gives them beside their right ones."""
CONTAINERS = ("statsContainers", "xmlDb")
"""What holds the containers: the first in STATS, the second in FULLSTATS; read in both."""

_NO_SPACE = re.compile(rb"\A(\s*(?:<\?xml[^>]*>\s*)?<message)(?=type\s*=)")


def repaired(document: bytes) -> bytes | None:
    """Return a document that is not well-formed without its slips; None: it has none known.

    The one that hurts is ``<messagetype="stats"``, a space lost in print.
    """
    mended, found = _NO_SPACE.subn(rb"\1 ", document)
    return mended if found else None
