"""Plug-ins: found by name, one's own or others', or refused with the reason."""

from importlib.metadata import EntryPoint, EntryPoints
from typing import Protocol, runtime_checkable

import pytest

from anabranch.core import plugins
from anabranch.core.errors import UsageError
from anabranch.core.plugins import find_plugin

GROUP = "anabranch.test"


@runtime_checkable
class Greeting(Protocol):
    def greet(self) -> str: ...


class Own:
    def greet(self) -> str:
        return "own"


class Other:
    def greet(self) -> str:
        return "other"


OBJECT = Other()
NOTHING = object()


def find(name: str) -> str:
    return find_plugin(GROUP, name, Greeting, {"own": Own}).greet()  # type: ignore[type-abstract]


def test_a_plug_in_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("own") == "own"
    points = [
        EntryPoint(name, f"{__name__}:{value}", GROUP)
        for name, value in (("x", "Other"), ("y", "OBJECT"), ("z", "NOTHING"), ("gone", "Gone"))
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda **want: EntryPoints(points).select(**want))
    assert find("x") == find("y") == "other"
    assert find("own") == "own"
    with pytest.raises(UsageError, match="is no Greeting"):
        find("z")
    with pytest.raises(UsageError, match="Gone"):
        find("gone")
    with pytest.raises(UsageError, match="there are: gone, own, x, y, z"):
        find("nobody")


def test_an_entry_point_comes_before_what_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints([EntryPoint("own", f"{__name__}:Other", GROUP)])
    monkeypatch.setattr(plugins, "entry_points", lambda **want: points.select(**want))
    assert find("own") == "other"
