"""Flows that could be mistaken for each other are never accepted together, whatever was before."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.worlds import flow_of, network_of

from anabranch.fabric.apart import Apart
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import Flow

LINE = network_of(3, [(0, 1, False), (1, 2, False)])


def accepts(*flows: Flow) -> bool:
    try:
        Apart().change((), flows)
    except MisuseError:
        return False
    return True


@given(st.data())
def test_what_is_refused_changes_nothing(data: st.DataObject) -> None:
    apart = Apart()
    kept: dict[str, Flow] = {}
    for _ in range(6):
        numbers = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=2))
        drawn = [data.draw(flow_of(LINE, number)) for number in numbers]
        names = data.draw(st.lists(st.sampled_from("abc"), max_size=2, unique=True))
        new = {name: replace(flow, name=name) for name, flow in zip(names, drawn, strict=False)}
        wanted = {**kept, **new}
        old = [kept[name] for name in new if name in kept]
        if accepts(*wanted.values()):
            apart.change(old, new.values())
            kept = wanted
        else:
            with pytest.raises(MisuseError, match="nothing would tell them apart"):
                apart.change(old, new.values())
