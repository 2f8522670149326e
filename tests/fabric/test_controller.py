"""The controller against scripted switches: what a real Open vSwitch never does.

What it does do is in tests/lab/test_fabric_openvswitch.py.
"""

import asyncio
import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.waiting import until

from anabranch.core.events import Event
from anabranch.fabric import doors, reconciler
from anabranch.fabric.controller import Controller
from anabranch.fabric.doors import server_context
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError
from anabranch.fabric.openflow.actions import Output
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.tables import Rule, Tables

ADD, DELETE_STRICT = 0, 4


class FakeSwitch:
    """A switch that answers by the book unless told not to; remembers the flow_mods it got."""

    def __init__(self, speech: Any, *, dpid: int = 1, ports: bytes = b"") -> None:
        self.speech = speech
        self.dpid = dpid
        self.ports = ports
        self.commands: list[int] = []
        self.journal: list[tuple[str, int]] | None = None
        self.name = ""
        self.answers_barriers = True
        self.silent = False
        self.held_back: list[tuple[int, int, bytes]] = []
        self.refuses_flow_mods = False
        self.flow_stats = b""
        self.described = b""
        self.group_stats = b""
        self.unknown: set[int] = set()
        self.asked: set[int] = set()
        self.kinds: set[int] = set()
        self.closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, path: Path | None = None, port: int = 0) -> None:
        if path is not None:
            reader, self._writer = await asyncio.open_unix_connection(str(path))
        else:
            reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self.send(self.speech.hello(4))
        self._task = asyncio.create_task(self._serve(reader))

    def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def disconnect(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                header = await reader.readexactly(8)
                body = await reader.readexactly(int.from_bytes(header[2:4], "big") - 8)
                self._answer(header[1], int.from_bytes(header[4:], "big"), body)
        self.closed.set()

    def speak(self) -> None:
        """Answer again, and what was asked meanwhile."""
        self.silent = False
        for asked in self.held_back:
            self._answer(*asked)

    def _answer(self, kind: int, xid: int, body: bytes) -> None:
        speech = self.speech
        if self.silent:
            self.held_back.append((kind, xid, body))
            return
        self.kinds.add(kind)
        if kind == 5:
            self.send(speech.features(self.dpid, xid))
        elif kind == 14:
            self.commands.append(body[17])
            if self.journal is not None:
                self.journal.append((self.name, body[17]))
            if self.refuses_flow_mods:
                self.send(speech.error(5, 0, xid))
        elif kind == 18:
            request = int.from_bytes(body[:2], "big")
            self.asked.add(request)
            if request in self.unknown:
                self.send(speech.error(1, 2, xid))
                return
            answers = {13: self.ports, 1: self.flow_stats, 6: self.group_stats, 7: self.described}
            answer = answers.get(request, b"")
            self.send(speech.multipart(request, answer, xid))
        elif kind == 20 and self.answers_barriers:
            self.send(speech.message(21, xid=xid))


class Bench:
    """A controller, its events, and the scripted switches that are to be closed at the end."""

    def __init__(self, directory: Path, speech: Any) -> None:
        self.directory = directory
        self.speech = speech
        self.events: list[Event] = []
        self.controller = Controller(self.events.append, names={7: "far"}, timeout=1.0)
        self.fakes: list[FakeSwitch] = []

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.controller"

    async def listen(self, *names: str) -> None:
        for name in names:
            await self.controller.listen_unix(self.path(name), name)

    def fake(self, **options: Any) -> FakeSwitch:
        fake = FakeSwitch(self.speech, **options)
        self.fakes.append(fake)
        return fake

    async def switch(self, name: str, **options: Any) -> FakeSwitch:
        fake = self.fake(**options)
        fake.name = name
        before = self.kinds(name).count("switch.connected")
        await fake.connect(self.path(name))
        await until(lambda: self.kinds(name).count("switch.connected") > before)
        return fake

    def kinds(self, subject: str) -> list[str]:
        return [event.kind for event in self.events if event.subject == subject]


@pytest.fixture
async def bench(speech: Any) -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="ab-t") as directory:
        bench = Bench(Path(directory), speech)
        yield bench
        await bench.controller.close()
        for fake in bench.fakes:
            await fake.disconnect()
        assert list(Path(directory).iterdir()) == []


def rule(number: int, out: int = 2) -> Rule:
    return Rule(0, 1, Match(in_port=number), (Output(out),), 1)


def tables(*rules: Rule) -> Tables:
    return Tables(frozenset(rules))


async def test_a_switch_comes_with_its_ports_and_goes(bench: Bench) -> None:
    await bench.listen("leaf")
    state = bench.controller.switches()["leaf"]
    assert (state.connected, state.dpid, dict(state.ports), state.rules) == (False, None, {}, None)
    speech = bench.speech
    fake = await bench.switch("leaf", dpid=9, ports=speech.port(1, "l1") + speech.port(2, "l2"))
    state = bench.controller.switches()["leaf"]
    assert (state.connected, state.dpid) == (True, 9)
    assert [port.name for port in state.ports.values()] == ["l1", "l2"]
    await fake.disconnect()
    await until(lambda: bench.kinds("leaf") == ["switch.connected", "switch.lost"])
    assert not bench.controller.switches()["leaf"].connected


async def test_nothing_is_sent_before_the_first_apply(bench: Bench) -> None:
    await bench.listen("leaf")
    fake = await bench.switch("leaf")
    await asyncio.sleep(0.05)
    assert fake.commands == []
    assert await bench.controller.apply({"leaf": tables(rule(1))}) == frozenset()
    assert fake.commands == [ADD]
    await bench.controller.apply({"leaf": tables(rule(1))})
    assert fake.commands == [ADD]
    await bench.controller.apply({"leaf": tables(rule(1, out=3))})
    assert fake.commands == [ADD, ADD]
    await bench.controller.apply({})
    assert fake.commands == [ADD, ADD, DELETE_STRICT]
    assert bench.controller.switches()["leaf"].rules == 0


async def test_additions_go_downstream_first_and_deletions_upstream_first(bench: Bench) -> None:
    order = ("root", "relay", "leaf")
    await bench.listen(*order)
    journal: list[tuple[str, int]] = []
    for name in order:
        (await bench.switch(name)).journal = journal
    await bench.controller.apply({name: tables(rule(1)) for name in order}, order)
    await bench.controller.apply({name: tables(rule(2)) for name in order}, order)
    upstream, downstream = list(order), list(reversed(order))
    assert journal == [
        *((name, ADD) for name in downstream),
        *((name, ADD) for name in downstream),
        *((name, DELETE_STRICT) for name in upstream),
    ]


async def test_rules_wait_for_a_switch_that_is_not_there(bench: Bench) -> None:
    await bench.listen("root", "leaf")
    root = await bench.switch("root")
    wanted = {name: tables(rule(1)) for name in ("root", "leaf", "nowhere")}
    assert await bench.controller.apply(wanted) == {"leaf", "nowhere"}
    assert root.commands == [ADD]
    leaf = await bench.switch("leaf")
    await until(lambda: bench.controller.switches()["leaf"].rules == 1)
    assert leaf.commands == [ADD]


async def test_a_switch_that_does_not_answer_is_named_and_the_others_are_served(
    bench: Bench,
) -> None:
    await bench.listen("root", "leaf")
    root, leaf = await bench.switch("root"), await bench.switch("leaf")
    leaf.answers_barriers = False
    with pytest.raises(FabricError, match=r"leaf did not answer within 1 s"):
        await bench.controller.apply(
            {"root": tables(rule(1)), "leaf": tables(rule(1))}, ("root", "leaf")
        )
    assert root.commands == [ADD]
    await asyncio.wait_for(leaf.closed.wait(), 2)
    await until(lambda: "switch.lost" in bench.kinds("leaf"))
    again = await bench.switch("leaf")
    await until(lambda: again.commands == [ADD])


async def test_a_switch_that_is_silent_from_the_start_holds_up_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_PATIENCE", 0.05)
    await bench.listen("root", "leaf")
    root, leaf = await bench.switch("root"), await bench.switch("leaf")
    leaf.silent = True
    wanted = {"root": tables(rule(1)), "leaf": tables(rule(1))}
    assert await bench.controller.apply(wanted, ("root", "leaf")) == {"leaf"}
    assert (root.commands, leaf.commands) == ([ADD], [])
    wanted["root"] = tables(rule(1), rule(2))
    assert await bench.controller.apply(wanted, ("root", "leaf")) == {"leaf"}
    assert root.commands == [ADD, ADD]
    assert bench.kinds("leaf") == ["switch.connected"], "it was not waited for in vain"
    leaf.speak()
    await until(lambda: bench.controller.switches()["leaf"].rules == 1)
    assert leaf.commands == [ADD]
    assert await bench.controller.apply(wanted, ("root", "leaf")) == frozenset()
    assert (root.commands, leaf.commands) == ([ADD, ADD], [ADD])


async def test_switches_beside_the_order_do_not_hold_it_up(bench: Bench) -> None:
    await bench.listen("root", "other")
    root, other = await bench.switch("root"), await bench.switch("other")
    await bench.controller.apply({n: tables(rule(1)) for n in ("root", "other")}, ("root",))
    other.silent = True
    applying = asyncio.create_task(
        bench.controller.apply({n: tables(rule(2)) for n in ("root", "other")}, ("root",))
    )
    await until(lambda: root.commands == [ADD, ADD, DELETE_STRICT])
    assert not applying.done()
    other.speak()
    assert await applying == frozenset()
    assert other.commands == [ADD, ADD, DELETE_STRICT]


async def test_a_switch_that_is_away_is_dialled_often_for_ever(bench: Bench) -> None:
    calls = 0

    def restarted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    path = bench.directory / "leaf.mgmt"
    async with await asyncio.start_unix_server(restarted, path):
        await bench.controller.connect_unix(path, "leaf")
        await until(lambda: calls > 10)  # with a growing delay this would take too long
        await bench.controller.close()
    path.unlink(missing_ok=True)


async def test_a_switch_that_leaves_during_apply_is_pending(bench: Bench) -> None:
    await bench.listen("leaf")
    leaf = await bench.switch("leaf")
    leaf.answers_barriers = False
    applying = asyncio.create_task(bench.controller.apply({"leaf": tables(rule(1))}))
    await until(lambda: leaf.commands == [ADD])
    await leaf.disconnect()
    assert await applying == {"leaf"}


async def test_a_cancelled_apply_leaves_no_rule_behind(bench: Bench, speech: Any) -> None:
    """What was sent but never confirmed is read back before the next change."""
    await bench.listen("leaf")
    leaf = await bench.switch("leaf")
    leaf.answers_barriers = False
    applying = asyncio.create_task(bench.controller.apply({"leaf": tables(rule(1))}))
    await until(lambda: leaf.commands == [ADD])
    applying.cancel()
    with suppress(asyncio.CancelledError):
        await applying
    leaf.answers_barriers = True
    leaf.flow_stats = bytes.fromhex(
        "0050000000000000000000000001000000000000000000000000000000000001"
        "00000000000000000000000000000000"
        "0001000c8000000400000001" + "00000000" + "00040010" + "00000000" + "0016000800000001"
    )
    await bench.controller.apply({})
    assert leaf.commands == [ADD, DELETE_STRICT]


async def test_a_refused_rule_is_not_taken_for_installed(bench: Bench) -> None:
    await bench.listen("leaf")
    leaf = await bench.switch("leaf")
    leaf.refuses_flow_mods = True
    with pytest.raises(FabricError, match=r"leaf refused rule .* \(error type 5, code 0\)"):
        await bench.controller.apply({"leaf": tables(rule(1))})
    assert bench.kinds("leaf") == ["switch.connected", "switch.error"]
    assert bench.controller.switches()["leaf"].rules == 0
    leaf.refuses_flow_mods = False
    await bench.controller.apply({"leaf": tables(rule(1))})
    assert leaf.commands == [ADD, ADD]


async def test_two_rules_in_one_place_are_misuse(bench: Bench) -> None:
    with pytest.raises(MisuseError):
        await bench.controller.apply({"leaf": tables(rule(1), rule(1, out=5))})


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.0\r\n\r\n", bytes(64), b"\x04\x02\0\x08" * 9])
async def test_nonsense_is_disconnected_logged_once_and_counted(
    bench: Bench, nonsense: bytes
) -> None:
    await bench.listen("root", "leaf")
    root = await bench.switch("root")
    with capture_logs() as logs:
        for _ in range(3):
            reader, writer = await asyncio.open_unix_connection(str(bench.path("leaf")))
            writer.write(nonsense)
            await asyncio.wait_for(reader.read(), 2)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        await until(lambda: bench.controller.protocol_errors["leaf"] == 3)
    assert [log["event"] for log in logs] == ["switch.protocol_error"]
    assert bench.kinds("leaf") == []
    assert await bench.controller.apply({"root": tables(rule(1))}) == frozenset()
    assert root.commands == [ADD]


async def test_nonsense_from_a_known_switch_ends_its_connection(bench: Bench) -> None:
    await bench.listen("leaf")
    leaf = await bench.switch("leaf")
    leaf.send(b"\xff" * 20)
    await asyncio.wait_for(leaf.closed.wait(), 2)
    await until(lambda: bench.kinds("leaf") == ["switch.connected", "switch.lost"])


async def test_a_switch_of_another_version_is_told_why(bench: Bench) -> None:
    await bench.listen("leaf")
    reader, writer = await asyncio.open_unix_connection(str(bench.path("leaf")))
    writer.write(bench.speech.hello(1))
    sent = await asyncio.wait_for(reader.read(), 2)
    writer.close()
    await writer.wait_closed()
    assert b"OpenFlow 1.3, 1.4 or 1.5 is needed; offered: wire versions [1]" in sent
    assert bench.controller.protocol_errors["leaf"] == 1


async def test_half_a_message_hurts_nobody(bench: Bench) -> None:
    await bench.listen("leaf")
    _, writer = await asyncio.open_unix_connection(str(bench.path("leaf")))
    writer.write(bench.speech.hello(4)[:11])
    await writer.drain()
    leaf = await bench.switch("leaf")
    assert await bench.controller.apply({"leaf": tables(rule(1))}) == frozenset()
    assert leaf.commands == [ADD]
    writer.close()
    await writer.wait_closed()
    assert bench.kinds("leaf") == ["switch.connected"]


async def test_the_newer_connection_replaces_the_older(bench: Bench) -> None:
    await bench.listen("leaf")
    await bench.controller.apply({"leaf": tables(rule(1))})
    older = await bench.switch("leaf")
    newer = await bench.switch("leaf")
    await asyncio.wait_for(older.closed.wait(), 2)
    await until(lambda: newer.commands == [ADD])
    assert bench.kinds("leaf") == ["switch.connected", "switch.connected"]
    assert bench.controller.switches()["leaf"].connected


async def test_ports_that_change_are_events(bench: Bench) -> None:
    await bench.listen("leaf")
    speech = bench.speech
    leaf = await bench.switch("leaf", ports=speech.port(1, "l1") + speech.port(2, "l2"))
    leaf.send(speech.port_status(2, speech.port(1, "l1", down=True)))
    leaf.send(speech.port_status(2, speech.port(1, "l1", down=True)))
    leaf.send(speech.port_status(1, speech.port(2, "l2")))
    leaf.send(speech.port_status(0, speech.port(3, "l3")))
    await until(lambda: len(bench.events) == 4)
    changes = [(event.kind, event.data["port_no"]) for event in bench.events[1:]]
    assert changes == [("port.down", 1), ("port.down", 2), ("port.up", 3)]
    await leaf.disconnect()
    await bench.switch("leaf", ports=speech.port(1, "l1"))
    changes = [(event.kind, event.data.get("port_no")) for event in bench.events[6:]]
    assert changes == [("port.up", 1), ("port.down", 3)]


async def test_statistics_need_a_connected_switch(bench: Bench) -> None:
    await bench.listen("leaf")
    for ask in (bench.controller.readings.ports, bench.controller.readings.flows):
        for name in ("leaf", "nowhere"):
            with pytest.raises(DisconnectedError, match=f"{name} is not connected"):
                await ask(name)
    await bench.switch("leaf")
    assert await bench.controller.readings.ports("leaf") == []


async def test_over_tcp_a_switch_is_known_by_its_datapath_id(bench: Bench) -> None:
    port = await bench.controller.listen_tcp("127.0.0.1", 0)
    far, stranger = bench.fake(dpid=7), bench.fake(dpid=8)
    await far.connect(port=port)
    await stranger.connect(port=port)
    await asyncio.wait_for(stranger.closed.wait(), 2)
    await until(lambda: bench.kinds("far") == ["switch.connected"])
    assert list(bench.controller.switches()) == ["far"]


async def test_a_peer_that_does_not_read_is_not_read_from(bench: Bench) -> None:
    """Echo requests without end, answers never read: the controller stops, it does not hoard."""
    await bench.listen("leaf")
    reader, writer = await asyncio.open_unix_connection(str(bench.path("leaf")), limit=1024)
    writer.write(bench.speech.hello(4))
    echo = bench.speech.message(2, bytes(1000))
    sent = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            while sent < 64_000_000:
                writer.write(echo * 100)
                sent += len(echo) * 100
                await writer.drain()
    assert sent < 16_000_000
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
    del reader


async def test_places_that_cannot_be_listened_at_are_reported(bench: Bench) -> None:
    with pytest.raises(FabricError, match="cannot listen at"):
        await bench.controller.listen_unix(bench.directory / "no" / "where", "leaf")
    with pytest.raises(FabricError, match="cannot listen at"):
        await bench.controller.listen_tcp("203.0.113.1", 1)


async def test_a_stale_socket_is_replaced_and_a_newer_one_left_alone(bench: Bench) -> None:
    await bench.listen("leaf")
    successor = Controller(bench.events.append)
    await successor.listen_unix(bench.path("leaf"), "leaf")
    inode = os.stat(bench.path("leaf")).st_ino
    await bench.controller.close()
    assert os.stat(bench.path("leaf")).st_ino == inode
    await successor.close()
    assert not bench.path("leaf").exists()


async def test_a_second_switch_with_the_same_datapath_id_is_sent_away(bench: Bench) -> None:
    port = await bench.controller.listen_tcp("127.0.0.1", 0)
    first, *others = (bench.fake(dpid=7) for _ in range(3))
    await first.connect(port=port)
    await until(lambda: bench.kinds("far") == ["switch.connected"])
    with capture_logs() as logs:
        for other in others:
            await other.connect(port=port)
            await asyncio.wait_for(other.closed.wait(), 2)
    assert [log["event"] for log in logs] == ["switch.duplicate"]
    assert bench.kinds("far") == ["switch.connected", "switch.duplicate"]
    assert bench.controller.duplicates["far"] == 2
    assert await bench.controller.apply({"far": tables(rule(1))}) == frozenset()
    assert first.commands == [ADD]


async def test_a_switch_that_returns_replaces_its_own_dead_connection(bench: Bench) -> None:
    """What was heard of the new connection while the old one was asked is not forgotten."""
    port = await bench.controller.listen_tcp("127.0.0.1", 0)
    speech = bench.speech
    dead, alive = (bench.fake(dpid=7, ports=speech.port(1, "f1")) for _ in range(2))
    await dead.connect(port=port)
    await until(lambda: bench.kinds("far") == ["switch.connected"])
    await bench.controller.apply({"far": tables(rule(1))})
    dead.answers_barriers = False  # as if its packets went nowhere
    await alive.connect(port=port)
    await asyncio.sleep(0.05)
    alive.send(speech.port_status(2, speech.port(1, "f1", down=True)))
    await until(lambda: alive.commands == [ADD])
    assert bench.kinds("far")[-1] == "port.down"
    assert not bench.controller.switches()["far"].ports[1].up
    await asyncio.wait_for(dead.closed.wait(), 2)
    assert bench.kinds("far").count("switch.connected") == 2
    assert bench.controller.duplicates["far"] == 0


async def test_a_switch_that_closes_and_returns_is_no_duplicate(bench: Bench) -> None:
    port = await bench.controller.listen_tcp("127.0.0.1", 0)
    for turn in range(1, 4):
        far = bench.fake(dpid=7)
        await far.connect(port=port)
        await until(lambda n=turn: bench.kinds("far").count("switch.connected") == n)
        await far.disconnect()
    assert bench.controller.duplicates["far"] == 0


async def test_a_group_description_that_breaks_the_protocol_is_not_asked_for_again(
    bench: Bench,
) -> None:
    """Open vSwitch describes groups of more than some 800 buckets with wrong lengths."""
    await bench.listen("leaf")
    await bench.controller.apply({"leaf": tables(rule(1))})
    first = bench.fake()
    first.described = b"\0\4" + bytes(30)  # an entry of 4 bytes
    await first.connect(bench.path("leaf"))
    await asyncio.wait_for(first.closed.wait(), 2)
    assert first.asked == {1, 7, 10, 13}
    second = bench.fake()
    second.group_stats = bytes.fromhex("00280000" + "00000009" + "00" * 32)
    await second.connect(bench.path("leaf"))
    await until(lambda: 15 in second.kinds)  # group_mod: the group that nobody wants is deleted
    assert second.asked == {1, 6, 10, 13}
    assert second.commands == [ADD]
    await until(lambda: bench.controller.switches()["leaf"].rules == 1)
    third = await bench.switch("leaf")
    await until(lambda: third.commands == [ADD])
    assert third.asked == {1, 7, 10, 13}  # all is well again


async def test_callbacks_that_fail_hurt_nobody(speech: Any) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a callback's own fault")

    events: list[Event] = []
    with tempfile.TemporaryDirectory(prefix="ab-t") as directory:
        path = Path(directory) / "leaf.controller"
        controller = Controller(events.append, on_switch=fail, on_packet_in=fail, hot=fail)
        await controller.listen_unix(path, "leaf")
        fake = FakeSwitch(speech, ports=speech.port(1, "l1"))
        with capture_logs() as logs:
            await fake.connect(path)
            await until(lambda: controller.callbacks_failed == 1)
            fake.send(speech.port_status(2, speech.port(1, "l1", down=True)))
            fake.send(speech.message(10, bytes(16) + bytes.fromhex("0001000400000000") + bytes(2)))
            await until(lambda: controller.callbacks_failed == 3)
        assert [log["event"] for log in logs] == ["controller.callback_failed"]
        assert controller.switches()["leaf"].connected
        await controller.close()
        await fake.disconnect()


async def test_tls_without_certificates_of_switches_is_misuse(bench: Bench) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(MisuseError, match="must require"):
        await bench.controller.listen_tcp("127.0.0.1", 0, tls=context)
    with pytest.raises(FabricError, match="cannot use the certificates"):
        server_context(bench.path("a"), bench.path("b"), bench.path("c"))


async def test_handshakes_that_fail_are_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "TLS_HANDSHAKE", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    port = await bench.controller.listen_tcp("127.0.0.1", 0, tls=context)
    with capture_logs() as logs:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bench.speech.hello(4) * 4)
            with suppress(OSError):
                await asyncio.wait_for(reader.read(), 2)
            writer.close()
        await until(lambda: bench.controller.tls_refused == 2)
    assert [log["event"] for log in logs] == ["switch.tls_refused"]


async def test_a_switch_without_groups_and_meters_is_no_reason_to_complain(bench: Bench) -> None:
    await bench.listen("leaf")
    leaf = bench.fake()
    leaf.unknown = {7, 10}
    await bench.controller.apply({"leaf": tables(rule(1))})
    with capture_logs() as logs:
        await leaf.connect(bench.path("leaf"))
        await until(lambda: bench.controller.switches()["leaf"].rules == 1)
    assert leaf.commands == [ADD]
    assert (logs, bench.kinds("leaf")) == ([], ["switch.connected"])


async def test_a_switch_that_does_not_tell_its_flows_is_not_written_to(bench: Bench) -> None:
    await bench.listen("leaf")
    leaf = bench.fake()
    leaf.unknown = {1}
    await leaf.connect(bench.path("leaf"))
    await until(lambda: bench.kinds("leaf") == ["switch.connected"])
    with pytest.raises(FabricError, match="leaf does not tell its flows"):
        await bench.controller.apply({"leaf": tables(rule(1))})
    assert leaf.commands == []
