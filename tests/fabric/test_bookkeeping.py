"""Copies that do not change, and alarms that ring once, in order, at the last time asked for."""

from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.bookkeeping import Alarms, Register


def test_a_copy_is_the_same_until_something_changes() -> None:
    register: Register[str, int] = Register()
    assert register.put("a", 1)
    before = register.copy()
    assert not register.put("a", 1)
    assert not register.drop("b")
    assert register.copy() is before
    assert register.put("a", 2)
    assert register.drop("a")
    assert (before, register.copy()) == ({"a": 1}, {})


steps = st.tuples(st.sampled_from(["set", "cancel", "ring"]), st.integers(0, 4), st.integers(0, 20))


@given(st.lists(steps, max_size=60))
def test_alarms_are_a_table_of_times(taken: list[tuple[str, int, int]]) -> None:
    alarms: Alarms[int] = Alarms()
    table: dict[int, float] = {}
    for what, key, when in taken:
        if what == "set":
            alarms.set(key, float(when))
            table[key] = float(when)
        elif what == "cancel":
            alarms.cancel(key)
            table.pop(key, None)
        else:
            rung = list(alarms.due(float(when)))
            assert [table[key] for key in rung] == sorted(t for t in table.values() if t <= when)
            for key in rung:
                del table[key]
        assert alarms.next() == min(table.values(), default=None)
        assert all((key in alarms) == (key in table) for key in range(5))
