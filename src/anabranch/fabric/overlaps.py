"""Which matches overlap: tuple space search (Srinivasan et al., SIGCOMM 1999).

Matches that look at the same bits of the same fields are kept in one dictionary, so that most
questions are one look-up for each kind of match and not for each match.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from anabranch.fabric.openflow.oxm import Match, field_named

Shape = tuple[tuple[str, int], ...]  # field and mask, every mask not 0, sorted by field
_ALL_ONES = -1


def shape_of(match: Match) -> tuple[Shape, tuple[int, ...]]:
    """Return which bits a match looks at, and what they must be."""
    shape, values = [], []
    for name, value in sorted(match.fields):
        mask = _ALL_ONES
        if isinstance(value, tuple):
            value, mask = value
        elif isinstance(value, str):
            address = field_named(name).address
            assert address is not None
            raw, raw_mask = address.split(value)
            value = int.from_bytes(raw, "big")
            if raw_mask is not None:
                mask = int.from_bytes(raw_mask, "big")
        shape.append((name, mask))
        values.append(value & mask)
    return tuple(shape), tuple(values)


def _common(one: Shape, other: Shape) -> Shape:
    masks = dict(other)
    return tuple((name, mask & masks[name]) for name, mask in one if masks.get(name, 0) & mask)


@dataclass(slots=True)
class _Kind:
    """The matches of one shape, by what their bits are; and again by fewer of their bits."""

    shape: Shape
    members: dict[tuple[int, ...], set[str]] = field(default_factory=dict)
    views: dict[Shape, dict[tuple[int, ...], set[str]]] = field(default_factory=dict)

    def project(self, values: tuple[int, ...], to: Shape) -> tuple[int, ...]:
        mine = dict(zip((name for name, _ in self.shape), values, strict=True))
        return tuple(mine[name] & mask for name, mask in to)

    def view(self, to: Shape) -> dict[tuple[int, ...], set[str]]:
        if to == self.shape:
            return self.members
        found = self.views.get(to)
        if found is None:
            found = self.views[to] = {}
            for values, names in self.members.items():
                found.setdefault(self.project(values, to), set()).update(names)
        return found


class Overlaps:
    """Named matches, each in a scope; matches of different scopes have nothing to do with another.

    Under one name there is at most one match in each scope.
    """

    def __init__(self) -> None:
        self._scopes: dict[Hashable, dict[Shape, _Kind]] = {}

    def rival(self, scope: Hashable, match: Match) -> str | None:
        """Return a name in the scope, the first of them, whose match has a packet in common."""
        kinds = self._scopes.get(scope)
        if not kinds:
            return None
        shape, values = shape_of(match)
        mine = _Kind(shape)
        rivals: set[str] = set()
        for kind in kinds.values():
            common = _common(shape, kind.shape)
            rivals |= kind.view(common).get(mine.project(values, common), set())
        return min(rivals, default=None)

    def add(self, scope: Hashable, name: str, match: Match) -> None:
        """Keep a match."""
        shape, values = shape_of(match)
        kind = self._scopes.setdefault(scope, {}).setdefault(shape, _Kind(shape))
        kind.members.setdefault(values, set()).add(name)
        for to, view in kind.views.items():
            view.setdefault(kind.project(values, to), set()).add(name)

    def remove(self, scope: Hashable, name: str, match: Match) -> None:
        """Forget a match that was added."""
        shape, values = shape_of(match)
        kinds = self._scopes[scope]
        kind = kinds[shape]
        _drop(kind.members, values, name)
        for to, view in kind.views.items():
            _drop(view, kind.project(values, to), name)
        if not kind.members:
            del kinds[shape]
        if not kinds:
            del self._scopes[scope]


def _drop(members: dict[tuple[int, ...], set[str]], values: tuple[int, ...], name: str) -> None:
    names = members[values]
    names.discard(name)
    if not names:
        del members[values]
