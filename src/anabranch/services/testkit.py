"""Runs a module without a network: on packets from a capture, or from a list.

    kit = TestKit.of_directory(Path("mymodule"), properties={"top": "3"})
    report = kit.run(read_capture(Path("some.pcap")))
    assert report.dropped == 2

The module is given batches as in a sandbox, in this process: a debugger steps into it.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dpkt
import numpy as np

from anabranch.services.chain import Chain, Link
from anabranch.services.errors import ArchiveError, ServicesError
from anabranch.services.frames import ETHERNET_BYTES
from anabranch.services.manifest import FILE_NAME, Filter, parse_manifest
from anabranch.services.module import Context, Module, Status
from anabranch.services.rings.receive import ETHERNET_AT, LONGEST_PACKET, SLOT_BYTES
from anabranch.services.sandbox.loader import load
from anabranch.services.slots import REPLY, Slots

IP_AT = ETHERNET_AT + ETHERNET_BYTES
_BATCH = 256
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_ETHERNET, _RAW_IP, _COOKED = 1, {12, 101, 228, 229}, 113
_ETHERTYPES = {0x0800, 0x86DD}


class CaptureError(ServicesError):
    """A file that is no capture of IP packets."""


@dataclass(slots=True)
class Report:
    """What became of the packets.

    Attributes:
        given: packets that the module was given, because its filters claim them.
        passed: packets that it was not given.
        forwarded, replied, dropped, emitted: verdicts.
        out: all that goes out, in order, each from its IP header on.
        errors: what the module raised.
        ns_per_packet: time in the module and in making its verdicts true.
        status: what the module says at the end.
    """

    given: int = 0
    passed: int = 0
    forwarded: int = 0
    replied: int = 0
    dropped: int = 0
    emitted: int = 0
    out: list[bytes] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ns_per_packet: float = 0.0
    status: Status = field(default_factory=dict)


class TestKit:
    """One instance of a module, and what stands for its node."""

    __test__ = False  # for pytest, it is none

    def __init__(
        self, module: Module, *, filters: Sequence[Filter] = (), context: Context | None = None
    ) -> None:
        self.module = module
        self._filters = tuple(filters)
        module.configure(context or Context(name="module", version="0", user="tester"))
        module.start()

    @classmethod
    def of_directory(
        cls,
        directory: Path,
        *,
        properties: Mapping[str, str] | None = None,
        files: Path | None = None,
    ) -> "TestKit":
        """Load a module as a sandbox would, with its own manifest.

        Args:
            files: what stands for the directory that its node would give it.

        Raises:
            ArchiveError: there is no good manifest.
            ModuleError: there is no module in it.
        """
        try:
            manifest = parse_manifest((directory / FILE_NAME).read_bytes())
        except OSError as error:
            raise ArchiveError(f"{directory / FILE_NAME}: {error.strerror}") from error
        context = Context(
            name=manifest.name,
            version=manifest.version,
            user="tester",
            properties=dict(properties or {}),
            address="127.0.0.1",
            ports=manifest.resources.ports,
            memory_mb=manifest.resources.memory_mb,
            directory=files,
            code=directory.resolve(),
        )
        module = load(directory.resolve(), manifest.entry)
        return cls(module, filters=manifest.filters, context=context)

    def run(self, packets: Iterable[bytes], *, batch: int = _BATCH) -> Report:
        """Give the module packets, each from its IP header on, as many at a time as ``batch``."""
        report, took = Report(), 0
        chain = Chain(lambda _link, error: report.errors.append(repr(error)))
        chain.links.append(Link("module", self.module))
        waiting: list[bytes] = []
        for packet in packets:
            if self._claims(packet):
                waiting.append(packet)
            else:
                report.passed += 1
            if len(waiting) == batch:
                took += self._pass(chain, waiting, report)
                waiting = []
        if waiting:
            took += self._pass(chain, waiting, report)
        report.ns_per_packet = took / report.given if report.given else 0.0
        report.status = self.module.status()
        return report

    def close(self) -> None:
        self.module.stop()

    def _claims(self, packet: bytes) -> bool:
        if len(packet) > LONGEST_PACKET:
            return False
        if not self._filters:
            return True
        protocol, port = _addressed(packet)
        return any(
            (f.protocol is None or _PROTOCOLS[f.protocol] == protocol)
            and (f.port is None or f.port == port)
            for f in self._filters
        )

    def _pass(self, chain: Chain, packets: list[bytes], report: Report) -> int:
        memory = np.zeros((len(packets), SLOT_BYTES), np.uint8)
        for row, packet in zip(memory, packets, strict=True):
            row[IP_AT : IP_AT + len(packet)] = np.frombuffer(packet, np.uint8)
        sizes = np.array([len(packet) + ETHERNET_BYTES for packet in packets], np.uint32)
        began = time.perf_counter_ns()
        slots = Slots(memory, IP_AT, sizes)
        chain.run(slots)
        rows, leaving = slots.leaving()
        took = time.perf_counter_ns() - began
        replied = int((slots.verdicts == REPLY).sum())
        report.given += len(packets)
        report.replied += replied
        report.forwarded += len(rows) - replied
        report.dropped += len(packets) - len(rows)
        report.emitted += len(slots.emitted)
        report.out += [
            memory[row, IP_AT : IP_AT + size - ETHERNET_BYTES].tobytes()
            for row, size in zip(rows.tolist(), leaving.tolist(), strict=True)
        ]
        report.out += slots.emitted
        return took


def read_capture(path: Path) -> Iterator[bytes]:
    """Yield the IP packets of a capture, pcap or pcapng; other frames are passed over.

    Raises:
        CaptureError: it cannot be read, is cut short, or is of a kind of link that has no IP.
    """
    try:
        with path.open("rb") as file:
            reader = dpkt.pcap.UniversalReader(file)
            link = reader.datalink()
            if link not in {_ETHERNET, _COOKED} | _RAW_IP:
                raise CaptureError(f"{path}: frames of link type {link} are not known")
            for _, frame in reader:
                packet = _ip_of(bytes(frame), link)
                if packet:
                    yield packet
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror or error}") from error
    except (ValueError, dpkt.Error, struct.error, KeyError, IndexError, MemoryError) as error:
        raise CaptureError(f"{path} is no capture, or cut short: {error}") from error


def write_capture(path: Path, packets: Iterable[bytes]) -> None:
    """Write IP packets as a pcap of raw IP (link type 101).

    Raises:
        CaptureError: it cannot be written.
    """
    try:
        with path.open("wb") as file:
            writer = dpkt.pcap.Writer(file, linktype=101)
            for packet in packets:
                writer.writepkt(packet, ts=0)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error


def _ip_of(frame: bytes, link: int) -> bytes:
    if link in _RAW_IP:
        return frame
    at = 12 if link == _ETHERNET else 14
    while int.from_bytes(frame[at : at + 2], "big") in {0x8100, 0x88A8}:
        at += 4
    return frame[at + 2 :] if int.from_bytes(frame[at : at + 2], "big") in _ETHERTYPES else b""


def _addressed(packet: bytes) -> tuple[int, int]:
    """Return the protocol and the destination port of a packet; 0 where it has none."""
    version = packet[0] >> 4 if packet else 0
    protocol_at, header = (9, (packet[0] & 15) * 4) if version == 4 else (6, 40)
    if version not in {4, 6} or len(packet) < header + 4:
        return 0, 0
    later = version == 4 and int.from_bytes(packet[6:8], "big") & 0x1FFF
    port = 0 if later else int.from_bytes(packet[header + 2 : header + 4], "big")
    return packet[protocol_at], port
