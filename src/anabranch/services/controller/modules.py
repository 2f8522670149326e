"""Which modules are installed on a node, by whom, and until when. Pure."""

from dataclasses import dataclass

from anabranch.services.signalling.values import Filter


@dataclass(slots=True)
class Module:
    """One installed module.

    Attributes:
        session: the GIST session whose SETUP brought or last renewed it.
        setup: SHA-256 of that SETUP, the whole message.
        expires: monotonic seconds.
    """

    user: str
    name: str
    digest: bytes
    filter: Filter | None
    properties: dict[str, str]
    session: bytes
    setup: bytes
    expires: float

    def same(self, digest: bytes, wanted: Filter | None, properties: dict[str, str]) -> bool:
        """Return whether a SETUP asks for exactly what is installed."""
        return (self.digest, self.filter, self.properties) == (digest, wanted, properties)


class Modules:
    """The modules of all users."""

    def __init__(self) -> None:
        self._modules: dict[tuple[str, str], Module] = {}

    def __len__(self) -> int:
        return len(self._modules)

    def get(self, user: str, name: str) -> Module | None:
        return self._modules.get((user, name))

    def of(self, user: str) -> list[Module]:
        """Return all of one user's, by name."""
        found = [module for (owner, _), module in self._modules.items() if owner == user]
        return sorted(found, key=lambda module: module.name)

    def put(self, module: Module) -> None:
        self._modules[module.user, module.name] = module

    def pop(self, user: str, name: str) -> Module | None:
        return self._modules.pop((user, name), None)

    def expired(self, now: float) -> list[Module]:
        """Return those whose time is over; they stay until they are popped."""
        return [module for module in self._modules.values() if module.expires <= now]

    def next_expiry(self) -> float | None:
        return min((module.expires for module in self._modules.values()), default=None)
