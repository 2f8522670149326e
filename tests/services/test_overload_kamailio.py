"""What Kamailio says of itself: over a real socket, and whatever it may be."""

import asyncio
import json
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.modules.overload.kamailio import (
    JsonRpc,
    Kamailio,
    KamailioError,
    callers_of,
    count_of,
)

DUMP = [
    {"entry": 3, "size": 1, "slot": [{"name": "192.0.2.1", "value": 7, "type": "int"}]},
    {"entry": 9, "size": 2, "slot": [{"name": "192.0.2.2", "value": 70, "type": "int"},
                                     {"name": "2001:db8::1", "value": 8, "type": "int"}]},
]  # fmt: skip


class Answers(asyncio.DatagramProtocol):
    """Kamailio's end of JSON-RPC."""

    def __init__(self, answer: Callable[[dict], bytes]) -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(self.answer(json.loads(data)), addr)


async def listening(path: Path, answer: Callable[[dict], bytes]) -> asyncio.DatagramTransport:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    loop = asyncio.get_running_loop()
    return (await loop.create_datagram_endpoint(lambda: Answers(answer), sock=server))[0]


def result(request: dict, value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "result": value, "id": request["id"]}).encode()


async def test_load_and_callers(tmp_path: Path) -> None:
    total = 100

    def answer(request: dict) -> bytes:
        nonlocal total
        if request["method"] == "htable.dump":
            assert request["params"] == ["callers"]
            return result(request, DUMP)
        total += 50
        return result(request, dict.fromkeys(request["params"], "0") | {"x": str(total)})

    transport = await listening(tmp_path / "rpc", answer)
    sip, probe = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    sip.bind(("127.0.0.1", 0))
    sip.setblocking(False)
    probe.connect(sip.getsockname())
    kamailio = Kamailio(JsonRpc(tmp_path / "rpc", tmp_path / "own"), probe)
    try:
        assert (await kamailio.measure()).served == 0.0
        loop = asyncio.get_running_loop()
        options, place = await loop.sock_recvfrom(sip, 2000)
        assert options.startswith(b"OPTIONS sip:")
        await asyncio.sleep(0.2)
        load = await kamailio.measure()
        assert 50 / 1.0 < load.served <= 50 / 0.2
        assert load.delay >= 0.2  # the first OPTIONS is not answered yet
        await loop.sock_recvfrom(sip, 2000)
        sip.sendto(b"SIP/2.0 200 OK\r\n" + options.split(b"\r\n", 1)[1], place)
        sip.sendto(b"something else", place)
        await asyncio.sleep(0.05)
        assert [str(a) for a in await kamailio.callers(2)] == ["192.0.2.2", "2001:db8::1"]
    finally:
        kamailio.close()
        sip.close()
        transport.close()
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("said", [b"nonsense", b"[]", b'{"id": 1, "error": {"code": 500}}'])
async def test_what_is_no_answer(tmp_path: Path, said: bytes) -> None:
    transport = await listening(tmp_path / "rpc", lambda _: said)
    rpc = JsonRpc(tmp_path / "rpc", tmp_path / "own")
    try:
        with pytest.raises(KamailioError):
            await rpc.call("stats.fetch", [])
    finally:
        rpc.close()
        transport.close()


async def test_no_kamailio(tmp_path: Path) -> None:
    rpc = JsonRpc(tmp_path / "rpc", tmp_path / "own")
    with pytest.raises(KamailioError, match="No such file"):
        await rpc.call("stats.fetch", [])
    rpc.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["slot", "name", "value", "x"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_any_result_is_read_or_refused(said: object) -> None:
    for read in (callers_of, count_of):
        try:
            read(said)
        except KamailioError:
            continue


def test_nobody_has_called() -> None:
    assert callers_of([]) == []
    assert callers_of(DUMP)[0] == ip_address("192.0.2.2")
