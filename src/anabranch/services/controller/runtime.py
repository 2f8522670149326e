"""What the service controller needs of what runs modules: the contract of the other side."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from anabranch.services.controller.users import User
from anabranch.services.errors import ServicesError
from anabranch.services.signalling.response import Status
from anabranch.services.signalling.values import Filter


class RuntimeRefusedError(ServicesError):
    """A module cannot be installed or removed; the sender is told why.

    Attributes:
        status: see :class:`~anabranch.services.signalling.response.Status`; 403 for an archive
            whose signature does not fit, 400 for a malformed one, 429 for a quota, 500 else.
    """

    def __init__(self, text: str, status: int = Status.FAILED) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class ModuleRequest:
    """A module that a user asked for and may have.

    Attributes:
        name: with the version, ``NetServ.apps.NetMonitor_1.0.0``.
        archive: its file; it stays there until the call returns.
        digest: the archive's SHA-256, checked.
        filter: which packets it gets; its destination is never None here.
        ttl: seconds until the controller will call for its removal.
        properties: for the module itself.
    """

    name: str
    archive: Path
    digest: bytes
    filter: Filter | None
    ttl: int
    properties: Mapping[str, str] = field(default_factory=dict)


class Runtime(Protocol):
    """Sandboxes and the forwarding plane. Calls for one user and module never overlap."""

    @property
    def building_blocks(self) -> Mapping[str, str]:
        """What modules can depend on: names and versions."""
        ...

    @property
    def capabilities(self) -> Mapping[str, str]:
        """What this node can do, for PROBE."""
        ...

    async def install(self, user: User, module: ModuleRequest) -> Mapping[str, str]:
        """Check the archive's signature by the user's key, install and start.

        A module of that name that runs is replaced, and keeps its state. Returns details for the
        response, such as the ports that it listens on.

        Raises:
            RuntimeRefusedError: it cannot be; what ran before still runs.
        """
        ...

    async def remove(self, user: User, name: str) -> None:
        """Stop and remove a module; one that is not there is no error.

        Raises:
            RuntimeRefusedError: it cannot be removed.
        """
        ...

    async def status(self, user: User, name: str) -> Mapping[str, str]:
        """Return how a module is: ``state`` and its counters. Empty: it is not there."""
        ...
