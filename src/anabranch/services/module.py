"""What a service module is: the whole contract between a tenant's code and a node.

    from anabranch.services.batch import Batch
    from anabranch.services.module import Module

    class Counter(Module):
        packets = 0

        def process(self, batch: Batch) -> None:
            self.packets += len(batch)

A *packet module* has ``process``; a *server module* opens sockets in ``start``, on the ports that
its manifest asks for; one module can be both. The life of an instance is

    configure -> [restore_state] -> start -> process ... -> [take_state] -> stop

and everything but threads of its own runs in one thread, never two calls at a time.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anabranch.services.batch import Batch
from anabranch.services.blocks.transcoder import Transcoder

Status = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Context:
    """What a module is told and may use.

    Attributes:
        name, version: its own.
        user: whose it is.
        public_key: the user's, as OpenSSH writes it: what they sign, a module can check.
        properties: the parameters of the message that installed it.
        filters: of which packets it is given, each as :class:`~anabranch.services.claim.Claim`
            prints itself.
        address, address6: the sandbox's own addresses, IPv4 and IPv6, or None.
        ports: TCP and UDP ports on which it may listen there.
        memory_mb: how much its manifest asks for.
        directory: where it may keep files, or None; it outlives the sandbox.
        code: where its archive is unpacked, to read data files.
        log: goes to the node's log, with the user's name.
        every: ``every(seconds, function)`` has a function called again and again between batches.
        transcoder: processes media outside the sandbox, or None: the node does not do that for
            this user.
    """

    name: str
    version: str
    user: str
    properties: Mapping[str, str] = field(default_factory=dict)
    filters: tuple[str, ...] = ()
    address: str | None = None
    ports: tuple[int, ...] = ()
    directory: Path | None = None
    code: Path = Path()
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("module"))
    every: Callable[[float, Callable[[], None]], None] = lambda _seconds, _function: None
    transcoder: Transcoder | None = None
    address6: str | None = None
    public_key: str = ""
    memory_mb: int = 16


class Module:
    """Base of every module; what it does not say does nothing."""

    def configure(self, context: Context) -> None:
        """Take the parameters, and refuse bad ones by raising ``ValueError``. Open nothing yet."""

    def restore_state(self, state: bytes) -> None:
        """Take over what the module before this one knew: another version, or on another node."""

    def start(self) -> None:
        """Begin: open sockets, start threads. Packets come only after it has returned."""

    def process(self, batch: Batch) -> None:
        """Look at a batch and decide. What nothing is said about is forwarded.

        An exception is logged; the packets that nobody had decided about are forwarded.
        """
        raise NotImplementedError

    def status(self) -> Status:
        """Return a few figures for whoever asks the node how the module fares.

        At most 20; names have letters, digits and ``_ . -``, names and values 64 characters.
        """
        return {}

    def take_state(self) -> bytes:
        """Return what a successor should know. No packet is processed after this."""
        return b""

    def stop(self) -> None:
        """End: close sockets, end threads."""

    @property
    def sees_packets(self) -> bool:
        """Whether it is a packet module."""
        return type(self).process is not Module.process
