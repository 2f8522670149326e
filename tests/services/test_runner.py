"""The loop of a sandbox, without its fences and without packets: what its node asks of it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.sandbox.runner import Runner
from anabranch.services.sandbox.spec import SandboxSpec, decode, encode
from anabranch.services.sandbox.timers import Timers

COUNTER = """
from anabranch.services.module import Module
class Counter(Module):
    count = 0
    def configure(self, context):
        self.step = int(context.properties["step"])
        context.every(0.005, self.tick)
    def tick(self):
        self.count += self.step
    def status(self):
        return {"count": self.count, "step": self.step}
    def take_state(self):
        return str(self.count).encode()
    def restore_state(self, state):
        self.count = int(state)
"""


class Asking:
    """The node's end."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.number = 0

    def __call__(self, do: str, **what: object) -> dict:
        self.number += 1
        self.control.send(encode({"do": do, "id": self.number, **what}))
        answer = decode(self.control.recv(65536))
        assert answer.pop("id") == self.number
        return answer

    def load(self, code: Path, **properties: str) -> dict:
        return self("load", module="m", name="m", version="1", entry="counter:Counter",
                    code=str(code), properties=properties, filters=[])  # fmt: skip


@pytest.fixture
def ask() -> Iterator[Asking]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    spec = SandboxSpec("alice", 1000, "", None)
    runner = Runner(spec, its, [])
    thread = threading.Thread(target=runner.run)
    thread.start()
    ours.settimeout(5)
    with ours, its:
        assert decode(ours.recv(100)) == {"up": True}
        yield Asking(ours)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "counter.py").write_text(COUNTER)
    return tmp_path


def status(ask: Asking) -> dict:
    return ask("status", module="")["modules"].get("m", {})


def test_timers_run_and_state_goes_on(ask: Asking, code: Path) -> None:
    assert "pause_ms" in ask.load(code, step="1")
    while int(status(ask)["count"]) < 3:
        pass
    before = int(status(ask)["count"])
    assert "pause_ms" in ask.load(code, step="0")
    after = status(ask)
    assert after["step"] == "0"
    assert int(after["count"]) >= before
    # the timer of the old one is gone, that of the new one adds nothing
    assert status(ask)["count"] == after["count"]
    state = ask("state", module="m")["state"]
    assert bytes.fromhex(state).decode() == after["count"]
    assert ask("unload", module="m") == {}
    assert status(ask) == {}


def test_what_fails_is_answered(ask: Asking, code: Path) -> None:
    assert "KeyError" in ask.load(code)["error"]
    assert "ValueError" in ask.load(code, step="x")["error"]
    assert "KeyError" in ask("no such thing", module="m")["error"]
    assert status(ask) == {}


def test_two_versions_of_a_file_do_not_mix(ask: Asking, tmp_path: Path) -> None:
    for number in (1, 2):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "part.py").write_text(f"STEP = {number}")
        (directory / "counter.py").write_text(COUNTER + """
    def status(self):
        return {"part": part.STEP}
import part
""")  # fmt: skip
        ask.load(directory, step="1")
        assert status(ask)["part"] == str(number)


@given(
    st.lists(st.floats(0.001, 2), min_size=1, max_size=5), st.lists(st.floats(0, 3), max_size=20)
)
def test_timers_are_called_when_due(periods: list[float], steps: list[float]) -> None:
    timers = Timers()
    calls = dict.fromkeys(range(len(periods)), 0)
    for number, period in enumerate(periods):
        timers.every(str(number), period, lambda n=number: calls.__setitem__(n, calls[n] + 1), 0.0)
    now = 0.0
    for step in steps:
        now += step
        for _, function in timers.due(now):
            function()
        due = timers.next()
        assert due is not None
        assert due >= now
    for number, period in enumerate(periods):
        assert calls[number] <= now / period + 1e-6
        assert calls[number] >= (1 if now >= period else 0)
    timers.forget("0")
    assert all(owner != "0" for owner, _ in timers.due(now + 10))


def test_a_timer_cannot_be_without_a_pause() -> None:
    for period in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="at least"):
            Timers().every("x", period, print, 0.0)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(decode(data), dict)
