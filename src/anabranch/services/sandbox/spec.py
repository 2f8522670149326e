"""What a sandbox is told when it is forked, and the messages between it and its node.

All messages are JSON, one a packet of a SOCK_SEQPACKET socket pair.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

MAX_MESSAGE = 64 * 1024
DATA, CODE = "/data", "/modules"
"""Where a sandbox sees its own directory, and its modules' files."""


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """How to shut a sandbox in. Descriptors come beside it, in the order of the fields that count.

    Attributes:
        user: whose it is.
        uid: the machine's user and group number of its process.
        code: the directory with its modules' files.
        image: a file system image for its own directory, or None.
        tcp_ports: on which it may listen.
        address, address6: its own, or None.
        address_space: bytes (RLIMIT_AS).
        file_size: bytes of its largest file (RLIMIT_FSIZE).
        ring_blocks: of the ring socket, 256 KiB each; 0: it has none, and no transmit socket.
        router_mac, own_mac: of the two ends of its packet link, hexadecimal; empty: what goes out
            keeps the addresses that it came with.
        transcoder: whether it has a socket to the transcoder, after those of the ring.
    """

    user: str
    uid: int
    code: str
    image: str | None
    tcp_ports: tuple[int, ...] = ()
    address: str | None = None
    address6: str | None = None
    address_space: int = 4 << 30
    file_size: int = 0
    ring_blocks: int = 0
    router_mac: str = ""
    own_mac: str = ""
    transcoder: bool = False

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        return cls(**message | {"tcp_ports": tuple(message["tcp_ports"])})


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Read a message.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        message = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("no object")  # noqa: TRY004 - of a value, not of our types
    return message
