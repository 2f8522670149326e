"""Plug-ins: what other packages offer by entry points, beside what comes along."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from anabranch.core.errors import UsageError

Plugin = TypeVar("Plugin")


def find_plugin(
    group: str, name: str, protocol: type[Plugin], own: Mapping[str, type[Plugin]]
) -> Plugin:
    """Return the plug-in called ``name``: an object, or what its class makes without arguments.

    Args:
        group: of entry points.
        name: of one of them, or of ``own``; an entry point comes first.
        protocol: what it must satisfy; runtime-checkable.
        own: classes that come along, by name.

    Raises:
        UsageError: there is none, it cannot be imported, or it does not satisfy ``protocol``.
    """
    found = entry_points(group=group, name=name)
    if not found:
        if name in own:
            return own[name]()
        known = sorted({*own, *(point.name for point in entry_points(group=group))})
        raise UsageError(f"{group}: there is no {name!r}; there are: {', '.join(known)}")
    point = next(iter(found))
    try:
        loaded = point.load()
        made = loaded() if isinstance(loaded, type) else loaded
    except Exception as problem:  # what others wrote may raise anything
        raise UsageError(f"{group}: {name!r} ({point.value}): {problem!r}") from problem
    if not isinstance(made, protocol):
        raise UsageError(f"{group}: {name!r} ({point.value}) is no {protocol.__name__}")
    return made
