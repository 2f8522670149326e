"""Which modules are installed on a node, by whom, and until when. Pure."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from anabranch.services.controller.users import User
from anabranch.services.signalling.values import Filter

_AGAIN = 5.0  # seconds after which one that could not be removed is looked at again


@dataclass(slots=True)
class Module:
    """One installed module.

    Attributes:
        owner: as known when it was installed.
        session: the GIST session whose SETUP brought or last renewed it.
        setup: SHA-256 of that SETUP, the whole message.
        expires: monotonic seconds.
    """

    owner: User
    name: str
    digest: bytes
    filter: Filter | None
    properties: dict[str, str]
    session: bytes
    setup: bytes
    expires: float

    @property
    def user(self) -> str:
        return self.owner.name

    def same(self, digest: bytes, wanted: Filter | None, properties: dict[str, str]) -> bool:
        """Return whether a SETUP asks for exactly what is installed."""
        return (self.digest, self.filter, self.properties) == (digest, wanted, properties)


class Modules:
    """The modules of all users."""

    def __init__(self) -> None:
        self._modules: dict[tuple[str, str], Module] = {}
        # expiry at the earliest; a module that was renewed is put back when that has come
        self._heap: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(sorted(self._modules.values(), key=lambda each: (each.user, each.name)))

    def get(self, user: str, name: str) -> Module | None:
        return self._modules.get((user, name))

    def of(self, user: str) -> list[Module]:
        """Return all of one user's, by name."""
        found = [module for (owner, _), module in self._modules.items() if owner == user]
        return sorted(found, key=lambda module: module.name)

    def put(self, module: Module) -> None:
        """Add one, or replace the one of that name."""
        self._modules[module.user, module.name] = module
        heapq.heappush(self._heap, (module.expires, (module.user, module.name)))

    def pop(self, user: str, name: str) -> Module | None:
        return self._modules.pop((user, name), None)

    def expired(self, now: float) -> list[Module]:
        """Return those whose time is over; they stay until they are popped or renewed."""
        found = []
        for _ in range(len(self._heap)):
            if self._heap[0][0] > now:
                break
            module = self._modules.get(heapq.heappop(self._heap)[1])
            if module is None:
                continue
            if module.expires <= now:
                found.append(module)
            heapq.heappush(
                self._heap, (max(module.expires, now + _AGAIN), (module.user, module.name))
            )
        return found

    def next_expiry(self) -> float | None:
        """Return when to ask for :meth:`expired`."""
        return self._heap[0][0] if self._heap else None
