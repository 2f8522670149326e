"""What comes out of GIST: for the layer above, and for the adapter beneath."""

from dataclasses import dataclass

from anabranch.services.signalling.gist.objects import Address, Flow


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the layer above came, along the flow or against it."""

    key: bytes
    flow: Flow
    data: bytes
    hops: int

    @property
    def upstream(self) -> bool:
        return self.flow.upstream


@dataclass(frozen=True, slots=True)
class LastNode:
    """There is no node after this one, for messages that were to be sent there."""

    key: bytes
    undelivered: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PathChanged:
    """Another node than before follows on the path of a session that is still needed."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """A message could not go: no way back is known, or it travelled too far."""

    key: bytes
    data: bytes
    reason: str


GistEvent = Received | LastNode | PathChanged | Undeliverable


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload to send.

    Attributes:
        source: None: our own address and port; else it is forwarded in that name, unchanged.
        ttl: None: the usual one.
    """

    data: bytes
    destination: tuple[Address, int]
    source: tuple[Address, int] | None = None
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes for the connection with that number."""

    association: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection: call ``association_opened`` or ``association_failed`` with the number."""

    association: int
    address: Address
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection with that number; it is forgotten already."""

    association: int


Output = Datagram | Segment | Connect | Close
