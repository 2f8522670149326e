"""The client of the database: bytes by hand and at random, then a real ovsdb-server."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.waiting import until

from anabranch.fabric.errors import DisconnectedError, MisuseError, ProtocolError
from anabranch.fabric.ovsdb.database import Database
from anabranch.fabric.ovsdb.interfaces import InterfaceState, interface_state, watch_interfaces
from anabranch.fabric.ovsdb.session import (
    Framer,
    Lost,
    Reply,
    Session,
    Update,
    result_rows,
    results,
    row_updates,
)
from anabranch.fabric.ovsdb.values import NewRow, Row, Uuid, decode, encode, members, same

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
needs_ovsdb = pytest.mark.skipif(not SCHEMA.exists(), reason="needs ovsdb-server")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)
atoms = (
    st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().map(Uuid)
)
# What a server may say that is nearly right.
near = st.fixed_dictionaries(
    {},
    optional={
        "id": st.none() | st.integers(0, 3) | st.text(max_size=2),
        "method": st.sampled_from(["echo", "update", "locked", 7]),
        "params": st.lists(json_values, max_size=3) | json_values,
        "result": json_values,
        "error": json_values,
    },
)


# values


@settings(deadline=None)
@given(atoms | st.lists(atoms).map(tuple) | st.dictionaries(atoms, atoms))
def test_values_survive_the_wire(value: Any) -> None:
    got = decode(json.loads(json.dumps(encode(value))))
    assert got == value
    if isinstance(value, tuple):
        assert [type(atom) for atom in members(got)] == [type(atom) for atom in value]


def test_the_name_of_a_new_row_is_no_string() -> None:
    assert encode((NewRow("a"), "a")) == ["set", [["named-uuid", "a"], "a"]]
    with pytest.raises(MisuseError):
        encode([1])  # type: ignore[arg-type]


def test_sets_are_equal_in_any_order_and_a_set_of_one_is_that_one() -> None:
    assert same((1, 2), (2, 1))
    assert same("x", ("x",))
    assert same({1: 2, 3: 4}, {3: 4, 1: 2})
    assert not same((), 1)
    assert not same({}, ())


@settings(deadline=None)
@given(json_values)
def test_any_json_is_a_value_or_one_error(raw: Any) -> None:
    with contextlib.suppress(ProtocolError):
        encode(decode(raw))


# session


def say(message: Any) -> bytes:
    return json.dumps(message).encode()


@settings(max_examples=40, deadline=None)
@given(st.lists(json_objects, max_size=4), st.data())
def test_objects_are_cut_apart_wherever_the_bytes_are(
    said: list[dict[str, Any]], data: st.DataObject
) -> None:
    ascii_ = data.draw(st.booleans())
    stream = b" \n".join(json.dumps(one, ensure_ascii=ascii_).encode() for one in said)
    framer = Framer()
    got = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += framer.feed(stream[:size])
        stream = stream[size:]
    assert [json.loads(one) for one in got] == said


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=60)
        | near.map(say)
        | json_objects.map(say)
        | st.text('{}[]"\\,:0e9.-', max_size=30).map(str.encode),
        max_size=6,
    ),
    st.booleans(),
)
@example([b'{"id":1,"method":"echo","params":[1e999]}'], False)
@example([b'{"id":1,"method":"echo","params":[NaN]}'], False)
@example([b'{"a":' * 100], True)
@example([b'{"id":' + b"9" * 5000 + b"}"], False)
@example([b'{"id":1,"method":"echo","params":["\\ud800"]}'], False)
@example([b'{"id":1,"result":1,"error":null}{"a"}'], False)
def test_any_bytes_give_events_or_one_error(parts: list[bytes], bytewise: bool) -> None:
    session = Session(0.0)
    session.request("transact", ["x"])
    stream = b"".join(parts)
    chunks = [stream[n : n + 1] for n in range(len(stream))] if bytewise else parts
    try:
        for chunk in chunks:
            for event in session.receive(chunk, 1.0):
                assert isinstance(event, Reply | Update)
    except ProtocolError:
        assert session.receive(b"x", 1.0) == []
        assert session.next_timer() is None
    json.loads("[" + session.data_to_send().decode().replace("}{", "},{") + "]")


@settings(deadline=None)
@given(near | json_values)
def test_any_answer_is_one_or_an_error(raw: Any) -> None:
    for parse in (row_updates, lambda raw: results(raw, 1), lambda raw: results([raw], 1)):
        with contextlib.suppress(ProtocolError, MisuseError):
            parse(raw)
    if isinstance(raw, dict):
        with contextlib.suppress(ProtocolError):
            result_rows(raw)
        with contextlib.suppress(ProtocolError):
            interface_state({key: decode(value) for key, value in raw.items()})


def test_a_message_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anabranch.fabric.ovsdb.session.MAX_MESSAGE", 1000)
    framer = Framer()
    framer.feed(b'{"' + b"x" * 990)
    with pytest.raises(ProtocolError, match="more than"):
        framer.feed(b"x" * 20)


def test_an_echo_is_answered_and_an_unknown_notification_passed_over() -> None:
    session = Session(0.0)
    assert session.receive(say({"method": "echo", "params": ["a", 1], "id": "e"}), 1.0) == []
    answer = {"result": ["a", 1], "error": None, "id": "e"}
    assert json.loads(session.data_to_send()) == answer
    assert session.receive(say({"method": "stolen", "params": ["x"], "id": None}), 1.0) == []
    assert session.data_to_send() == b""


def test_silence_is_asked_about_and_then_it_is_lost() -> None:
    session = Session(0.0, silence=5, lost_after=15)
    assert session.handle_timer(4.9) == []
    assert session.data_to_send() == b""
    assert session.next_timer() == 5
    session.handle_timer(5.0)
    echo = json.loads(session.data_to_send())
    assert echo["method"] == "echo"
    reply = say({"id": echo["id"], "result": [], "error": None})
    assert session.receive(reply, 6.0) == []  # nobody asked but the session
    assert session.next_timer() == 11
    session.handle_timer(11.0)
    assert session.handle_timer(21.0) == [Lost("the database was silent for 15.0 s")]
    with pytest.raises(MisuseError):
        session.request("echo", [])


def test_what_json_cannot_say_is_misuse() -> None:
    session = Session(0.0)
    for wrong in ({1, 2}, float("nan"), b"x"):
        with pytest.raises(MisuseError):
            session.request("transact", [wrong])
    assert session.data_to_send() == b""


def test_a_refused_operation_is_named() -> None:
    refusal = [{}, {"error": "constraint violation", "details": "no such row"}, None]
    with pytest.raises(MisuseError, match="operation 2: constraint violation no such row"):
        results(refusal, 3)
    with pytest.raises(MisuseError, match="the transaction: referential"):
        results([{}, {"error": "referential integrity violation"}], 1)


# interfaces


def interface(**columns: Any) -> Row:
    row = {"name": "x", "ofport": 1, "link_state": "up", "bfd_status": {}, "error": ()}
    return {**row, **columns}


def test_what_a_row_says_of_an_interface() -> None:
    plain = interface_state(interface())
    assert plain == InterfaceState("x", 1, True, None, None, None, None)
    assert plain.usable
    bfd = {"forwarding": "false", "state": "down", "diagnostic": "Control Detection Time Expired"}
    dead = interface_state(interface(bfd_status=bfd))
    assert (dead.forwarding, dead.bfd_state, dead.usable) == (False, "down", False)
    assert dead.bfd_diagnostic == "Control Detection Time Expired"
    missing = interface_state(interface(ofport=-1, link_state=(), error="No such device"))
    assert (missing.ofport, missing.link_up, missing.error) == (None, None, "No such device")
    assert not missing.usable
    assert not interface_state(interface(link_state="down")).usable


@pytest.mark.parametrize(
    "columns", [{"name": 1}, {"ofport": "x"}, {"ofport": (1, 2)}, {"bfd_status": "up"}]
)
def test_a_strange_row_is_a_protocol_error(columns: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        interface_state(interface(**columns))


# client against a real server


class Server:
    """ovsdb-server with an empty database of Open vSwitch, which can be killed and come back."""

    def __init__(self, directory: Path, *remotes: str, options: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.socket = directory / "db.sock"
        self._remotes = remotes
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        if not (directory / "conf.db").exists():
            subprocess.run(["ovsdb-tool", "create", directory / "conf.db", SCHEMA], check=True)

    async def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        remotes = [f"--remote={one}" for one in (f"punix:{self.socket}", *self._remotes)]
        self._process = subprocess.Popen(
            ["ovsdb-server", self.directory / "conf.db", *remotes, "-vconsole:off", "--no-chdir",
             f"--unixctl={self.directory}/ctl", *self._options],
        )  # fmt: skip
        while not self.socket.exists():
            assert self._process.poll() is None
            await asyncio.sleep(0.005)

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="ab-t"))
    made = Server(directory)
    try:
        await made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(directory)


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    made = Database(server.socket)
    await made.open()
    yield made
    await made.close()


def bridge(name: str) -> list[dict[str, Any]]:
    """Return operations that insert a root with a bridge, or only the bridge into it."""
    return [
        {"op": "insert", "table": "Bridge", "row": {"name": name}, "uuid-name": "b"},
        {"op": "mutate", "table": "Open_vSwitch", "where": [],
         "mutations": [["bridges", "insert", ["set", [["named-uuid", "b"]]]]]},
    ]  # fmt: skip


ROOT = {"op": "insert", "table": "Open_vSwitch", "row": {}}
Seen = list[tuple[object, object]]


def note(seen: Seen) -> Callable[[str, str, Row | None, Row | None], None]:
    def changed(_table: str, _uuid: str, old: Row | None, new: Row | None) -> None:
        seen.append((old and old["name"], new and new["name"]))

    return changed


@needs_ovsdb
async def test_a_transaction_is_done_whole_or_not_at_all(database: Database) -> None:
    await database.transact(ROOT, *bridge("one"))
    with pytest.raises(MisuseError, match="refused"):
        await database.transact(
            *bridge("two"), {"op": "insert", "table": "Bridge", "row": {"x": 1}}
        )
    with pytest.raises(MisuseError, match="refused"):
        await database.transact(*bridge("one"))  # known when everything is done: a name twice
    select = {"op": "select", "table": "Bridge", "where": [], "columns": ["name"]}
    (found,) = await database.transact(select)
    assert result_rows(found) == [{"name": "one"}]


@needs_ovsdb
async def test_a_monitor_tells_what_is_there_and_what_changes(database: Database) -> None:
    await database.transact(ROOT, *bridge("one"))
    seen: Seen = []
    end = await database.monitor("Bridge", ["name", "fail_mode"], note(seen))
    assert seen == [(None, "one")]
    await database.transact(*bridge("two"))
    where = [["name", "==", "two"]]
    await database.transact(
        {"op": "update", "table": "Bridge", "where": where, "row": {"fail_mode": "secure"}}
    )
    await database.transact(
        {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    )
    await until(lambda: len(seen) == 5)
    assert seen[1:3] == [(None, "two"), ("two", "two")]
    assert sorted(map(str, seen[3:])) == ["('one', None)", "('two', None)"]
    end()
    await database.transact(*bridge("three"))
    await database.transact()
    assert len(seen) == 5
    with pytest.raises(MisuseError):
        await database.monitor("Bridge", ["nonsense"], note(seen))


@needs_ovsdb
async def test_after_a_kill_only_what_changed_meanwhile_is_told(
    server: Server, database: Database
) -> None:
    stays = (await database.transact(ROOT, *bridge("stays")))[1]["uuid"]
    await database.transact(*bridge("goes"))
    seen: Seen = []
    await database.monitor("Bridge", ["name"], note(seen))
    seen.clear()
    server.kill()
    await until(lambda: not database.connected)
    insert, _ = bridge("comes")
    row = {"bridges": ["set", [stays, ["named-uuid", "b"]]]}
    meanwhile = [insert, {"op": "update", "table": "Open_vSwitch", "where": [], "row": row}]
    subprocess.run(
        ["ovsdb-tool", "transact", server.directory / "conf.db",
         json.dumps(["Open_vSwitch", *meanwhile])],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    await server.start()
    await until(lambda: len(seen) == 2)
    assert set(seen) == {("goes", None), (None, "comes")}
    await database.transact(*bridge("later"))
    await until(lambda: len(seen) == 3)
    assert seen[2] == (None, "later")


@needs_ovsdb
async def test_a_request_waits_for_a_server_that_comes_back(
    server: Server, database: Database
) -> None:
    await database.transact(ROOT)
    server.kill()
    await until(lambda: not database.connected)
    waiting = asyncio.create_task(database.transact(*bridge("one")))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await server.start()
    assert len(await waiting) == 2


@needs_ovsdb
async def test_a_server_that_hangs_is_given_up_and_tried_again(server: Server) -> None:
    database = Database(server.socket, timeout=0.2)
    await database.open()
    try:
        server.signal(signal.SIGSTOP)
        with pytest.raises(DisconnectedError, match="did not answer transact"):
            await database.transact(ROOT)
        server.signal(signal.SIGCONT)
        await until(lambda: database.connected)
        await database.transact()
    finally:
        await database.close()
    with pytest.raises(DisconnectedError, match="closed"):
        await database.transact()


@needs_ovsdb
async def test_interfaces_are_watched(database: Database) -> None:
    seen: list[tuple[str, InterfaceState | None]] = []
    await watch_interfaces(database, lambda name, state: seen.append((name, state)))
    await database.transact(
        ROOT,
        {"op": "insert", "table": "Interface", "row": {"name": "x"}, "uuid-name": "i"},
        {"op": "insert", "table": "Port", "uuid-name": "p",
         "row": {"name": "x", "interfaces": ["named-uuid", "i"]}},
        {"op": "insert", "table": "Bridge", "uuid-name": "b",
         "row": {"name": "b", "ports": ["named-uuid", "p"]}},
        {"op": "mutate", "table": "Open_vSwitch", "where": [],
         "mutations": [["bridges", "insert", ["set", [["named-uuid", "b"]]]]]},
    )  # fmt: skip
    for row in (
        {"ofport": 3, "link_state": "up"},
        {"mtu": 1500},  # nobody's business
        {"bfd_status": ["map", [["forwarding", "false"], ["state", "down"]]]},
    ):
        await database.transact({"op": "update", "table": "Interface", "where": [], "row": row})
    await database.transact(
        {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}}
    )
    await until(lambda: bool(seen) and seen[-1][1] is None)
    assert [(s.ofport, s.link_up, s.forwarding) for _, s in seen if s is not None] == [
        (None, None, None),
        (3, True, None),
        (3, True, False),
    ]
    assert {name for name, _ in seen} == {"x"}


@needs_ovsdb
async def test_a_server_is_reached_by_tls(server: Server) -> None:
    key, certificate = server.directory / "key.pem", server.directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = (f"--private-key={key}", f"--certificate={certificate}", f"--ca-cert={certificate}")
    server.kill()
    secure = Server(server.directory, f"pssl:{port}:127.0.0.1", options=files)
    await secure.start()
    context = ssl.create_default_context(cafile=str(certificate))
    context.load_cert_chain(certificate, key)
    try:
        database = Database(("127.0.0.1", port), tls=context)
        await database.open()
        await database.transact(ROOT)
        await database.close()
        strange = Database(("127.0.0.1", port), tls=ssl.create_default_context(), timeout=0.3)
        with pytest.raises(DisconnectedError):
            await strange.open()
    finally:
        secure.kill()


# client against a server that is none


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n", b"{]", b'{"id":1}'])
async def test_nonsense_ends_the_connection_and_another_is_tried(nonsense: bytes) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(nonsense)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    database = Database(server.sockets[0].getsockname()[:2], timeout=1)
    try:
        await database.open()
        with pytest.raises(DisconnectedError):
            await database.transact()
        await until(lambda: connections >= 3)
    finally:
        await database.close()
        server.close()
        await server.wait_closed()


async def test_nobody_there_is_disconnected() -> None:
    database = Database(Path("/nonexistent/db.sock"), timeout=0.1)
    with pytest.raises(DisconnectedError, match="no database answers at /nonexistent"):
        await database.open()
