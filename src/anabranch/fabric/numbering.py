"""Numbers for names: every director finds the same ones, and few change when a name comes or goes.

A name's number is its hash, or the next one that is free. Names are placed in one order, so that
the numbers depend on the set of names and not on its history.
"""

from collections.abc import Iterable
from hashlib import blake2b


def hashed(name: str) -> int:
    """Return 56 bits that depend on the name alone."""
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")


def assign(names: Iterable[str], numbers: range, taken: Iterable[int] = ()) -> dict[str, int]:
    """Return a number for each name; the last ones get none if there are too few.

    Args:
        taken: numbers that nobody may get.
    """
    used = {number - numbers.start for number in taken if number in numbers}
    found: dict[str, int] = {}
    size = len(numbers)
    for place, name in sorted((hashed(name), name) for name in names):
        if len(used) >= size:
            break
        slot = place % size
        while slot in used:
            slot = (slot + 1) % size
        used.add(slot)
        found[name] = numbers.start + slot
    return found


class Numbering:
    """The numbers of a set of names that changes by little, always as :func:`assign` gives them."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers
        self._found: dict[str, int] = {}
        self._used: set[int] = set()
        self._displaced = False

    def __getitem__(self, name: str) -> int:
        return self._found[name]

    def change(self, removed: Iterable[str], added: Iterable[str]) -> set[str]:
        """Forget names and take in others; return those others whose number changed by it."""
        removed, added = list(removed), list(added)
        for name in removed:
            self._used.discard(self._found.pop(name))
        start, size = self._numbers.start, len(self._numbers)
        if not self._displaced:
            for name in added:
                number = start + hashed(name) % size
                if number in self._used:
                    self._displaced = True
                self._used.add(number)
                self._found[name] = number
        if not self._displaced:
            return set()
        before = self._found
        self._found = assign([*before.keys() - set(added), *added], self._numbers)
        self._used = set(self._found.values())
        self._displaced = any(
            number != start + hashed(name) % size for name, number in self._found.items()
        )
        fresh = set(added)
        return {
            name
            for name, number in self._found.items()
            if name not in fresh and before[name] != number
        }
