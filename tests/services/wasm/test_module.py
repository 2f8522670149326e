"""Modules in WebAssembly: what they are given, what they may do, and what becomes of bad ones."""

import logging
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services.packets import ip, is_right, leaving, slots_of, tcp, udp, udp_segment
from tests.services.wasm.guests import configured, each, guest, loaded, run

from anabranch.services.chain import FAILURES_IN_A_ROW, Chain, Link
from anabranch.services.errors import ModuleError
from anabranch.services.module import Context
from anabranch.services.slots import FORWARD, REPLY
from anabranch.services.wasm import module as wasm_module
from anabranch.services.wasm.guest import WasmError
from anabranch.services.wasm.module import WasmModule

VERDICT_BY_TTL = each(
    "(i32.store8 (local.get $verdicts) (i32.load8_u offset=8 (local.get $packets)))"
)
ANSWER = '(import "anabranch" "answer" (func $answer (param i32 i32)))'
EMIT = '(import "anabranch" "emit" (func $emit (param i32 i32) (result i32)))'
LOG = '(import "anabranch" "log" (func $log (param i32 i32 i32)))'
EVERY = '(import "anabranch" "every" (func $every (param i32)))'
NOW = '(import "anabranch" "now" (func $now (result i64)))'
FOREVER = "(loop $l (br $l))"


@given(st.lists(st.integers(0, 1), min_size=1, max_size=20))
def test_it_drops_what_it_says_and_nothing_else(ttls: list[int]) -> None:
    packets = [udp(bytes([number]), ttl=ttl) for number, ttl in enumerate(ttls)]
    slots = slots_of(*packets)
    run(loaded(guest(VERDICT_BY_TTL)), slots)
    assert leaving(slots) == [p for p, ttl in zip(packets, ttls, strict=True) if ttl == FORWARD]


def test_more_packets_than_fit_one_call() -> None:
    packets = [udp(b"x" * (number % 200), ttl=number % 2) for number in range(700)]
    slots = slots_of(*packets)
    run(loaded(guest(VERDICT_BY_TTL)), slots)
    assert leaving(slots) == packets[::2]


def test_changed_packets_have_right_lengths_and_checksums() -> None:
    """Two bytes are cut off each packet, and its last is another one."""
    body = each("""
      (i32.store8 offset=3 (local.get $packets)
        (i32.sub (i32.load8_u offset=3 (local.get $packets)) (i32.const 2)))
      (i32.store8 (i32.add (local.get $packets) (i32.sub
        (i32.load8_u offset=3 (local.get $packets)) (i32.const 1))) (i32.const 33))
      (i32.store8 (local.get $verdicts) (i32.const 2))""")
    packets = [udp(b"abcdef"), tcp(b"abcdef"), udp(b"abcd", options=bytes(4))]
    slots = slots_of(*packets)
    run(loaded(guest(body)), slots)
    out = leaving(slots)
    assert all(map(is_right, out))
    assert [packet[-2:] for packet in out] == [b"c!", b"c!", b"a!"]
    assert [len(packet) for packet in out] == [len(packet) - 2 for packet in packets]
    assert struct.unpack_from("!H", out[0], 24)[0] == 12


def test_answers_go_back_in_the_servers_name() -> None:
    body = each("""
      (i32.store8 offset=28 (local.get $packets) (i32.const 65))
      (i32.store8 (local.get $verdicts) (i32.const 3))""")
    slots = slots_of(udp(b"question", "10.1.0.9", "10.2.0.9", (1234, 5060)), udp(b"q", ttl=3))
    run(loaded(guest(body)), slots)
    first, second = leaving(slots)
    assert first == udp(b"Auestion", "10.2.0.9", "10.1.0.9", (5060, 1234))
    assert is_right(second)
    assert set(slots.verdicts.tolist()) == {REPLY}


def test_it_may_send_others() -> None:
    """The first packet is sent a second time; what is no packet is refused, and it is told so."""
    body = """
      (drop (call $emit (i32.const 0) (i32.const 40)))
      (i32.store (i32.const 100) (call $emit (local.get $packets) (i32.const 33)))
      (i32.store (i32.const 104) (call $emit (local.get $packets) (i32.const 3000)))"""
    tell = '(func (export "take_state") (call $answer (i32.const 100) (i32.const 8)))'
    packet = udp(b"abcde")
    slots = slots_of(packet)
    module = loaded(guest(body, tell, imports=[EMIT, ANSWER]))
    run(module, slots)
    assert slots.emitted == [packet]
    assert module.take_state() == struct.pack("<ii", 1, 0)


def test_what_it_is_told_and_what_it_tells() -> None:
    keep = """
    (func (export "configure") (param i32 i32) (result i32)
      (global.set $at (local.get 0)) (global.set $bytes (local.get 1)) (i32.const 0))
    (global $at (mut i32) (i32.const 0)) (global $bytes (mut i32) (i32.const 0))
    (func (export "take_state") (call $answer (global.get $at) (global.get $bytes)))
    (func (export "restore_state") (param i32 i32) (result i32)
      (global.set $at (local.get 0)) (global.set $bytes (local.get 1)) (i32.const 0))
    (data (i32.const 0) "packets=12\\0ano sign\\0aword = two words\\0a")
    (func (export "status") (call $answer (i32.const 0) (i32.const 39)))"""
    module = loaded(guest("", keep, imports=[ANSWER]), top="3", name="é")
    told = module.take_state()
    assert told == "top\0003\0name\0é\0.name\0m\0.version\0001\0.user\0alice\0".encode()
    assert module.status() == {"packets": 12, "word": "two words"}
    module.restore_state(b"x" * 1000)
    assert module.take_state() == b"x" * 1000
    module.stop()


def test_it_logs_and_says_why_it_refuses(caplog: pytest.LogCaptureFixture) -> None:
    refuse = """
    (data (i32.const 0) "no such colour")
    (func (export "configure") (param i32 i32) (result i32)
      (call $log (i32.const 3) (i32.const 0) (i32.const 14)) (i32.const 7))"""
    with pytest.raises(ValueError, match="no such colour"):
        loaded(guest("", refuse, imports=[LOG]))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    with pytest.raises(ValueError, match="does not say why"):
        loaded(guest("", refuse.replace("$log (i32.const 3)", "$log (i32.const 1)"), imports=[LOG]))


def test_a_flood_of_lines_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    flood = """(local $n i32) (loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 5))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $n) (i32.const 1000))))"""
    module = loaded(guest(flood, imports=[LOG]))
    run(module, slots_of(udp()))
    assert len(caplog.records) == 20


def test_timers() -> None:
    timers = []
    ticking = """
    (global $ticks (mut i32) (i32.const 0))
    (func (export "configure") (param i32 i32) (result i32)
      (call $every (i32.const 1500)) (i32.const 0))
    (func (export "tick") (global.set $ticks (i32.add (global.get $ticks) (i32.const 1))))
    (func (export "take_state") (i32.store (i32.const 0) (global.get $ticks))
      (call $answer (i32.const 0) (i32.const 4)))"""
    module = WasmModule(guest("", ticking, imports=[EVERY, ANSWER]))
    module.configure(
        Context("m", "1", "alice", every=lambda seconds, do: timers.append((seconds, do)))
    )
    ((period, tick),) = timers
    assert period == 1.5
    tick()
    tick()
    assert module.take_state() == b"\2\0\0\0"
    silent = ticking.replace('(export "tick")', "")
    with pytest.raises(WasmError, match="no tick"):
        loaded(guest("", silent, imports=[EVERY, ANSWER]))


BAD_VERDICTS = {
    "no verdict": ("(i32.store8 (local.get $verdicts) (i32.const 4))", "4 is no verdict"),
    "a longer packet than there is room": (
        "(i32.store8 offset=2 (local.get $packets) (i32.const 9))"
        "(i32.store8 (local.get $verdicts) (i32.const 2))", "length cannot be"),
    "shorter than its header": (
        "(i32.store8 offset=3 (local.get $packets) (i32.const 10))"
        "(i32.store8 (local.get $verdicts) (i32.const 2))", "length cannot be"),
    "UDP without its header": (
        "(i32.store8 offset=3 (local.get $packets) (i32.const 25))"
        "(i32.store8 (local.get $verdicts) (i32.const 2))", "header of 8"),
    "another protocol": (
        "(i32.store8 offset=9 (local.get $packets) (i32.const 6))"
        "(i32.store8 (local.get $verdicts) (i32.const 2))", "another one"),
    "another version": (
        "(i32.store8 (local.get $packets) (i32.const 0x65))"
        "(i32.store8 (local.get $verdicts) (i32.const 3))", "another one"),
    "a trap": ("(unreachable)", "unreachable"),
    "out of its memory": ("(i32.store (i32.const -4) (i32.const 1))", "out of bounds"),
    "recursion": ("(call $deep)", "stack"),
    "a host function that reads elsewhere": (
        "(drop (call $emit (i32.const -1) (i32.const 100)))", "bytes of memory"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_VERDICTS)
def test_what_cannot_be_decides_nothing(case: str) -> None:
    body, words = BAD_VERDICTS[case]
    code = guest(each(body), "(func $deep (call $deep))", imports=[EMIT])
    packets = [udp(b"abcdefgh"), udp(b"i")]
    slots = slots_of(*packets)
    module = loaded(code)
    with pytest.raises(ModuleError, match=words):
        run(module, slots)
    assert leaving(slots) == packets


def test_only_udp_can_be_answered() -> None:
    slots = slots_of(udp(b"x"), tcp(b"x"))
    with pytest.raises(WasmError, match="only whole UDP"):
        run(loaded(guest(each("(i32.store8 (local.get $verdicts) (i32.const 3))"))), slots)
    assert len(leaving(slots)) == 2


def test_one_that_loops_is_interrupted_and_after_some_times_passed_by() -> None:
    failures: list[str] = []
    chain = Chain(lambda _link, error: failures.append(str(error)))
    chain.links.append(Link("m", loaded(guest(FOREVER))))
    packet = udp(b"x")
    began = time.monotonic()
    for _ in range(2):
        slots = slots_of(packet)
        chain.run(slots)
        assert leaving(slots) == [packet]
    assert 0.4 < time.monotonic() - began < 2.0
    assert failures == ["it ran for longer than 0.25 s"] * 2
    chain.links[0].in_a_row = FAILURES_IN_A_ROW
    chain.run(slots_of(packet))
    assert len(failures) == 2


def test_after_an_interruption_it_goes_on() -> None:
    """The first packet's payload says for how many milliseconds it is to take."""
    body = """(local $until i64)
      (local.set $until (i64.add (call $now) (i64.mul (i64.const 1000000)
        (i64.extend_i32_u (i32.mul (i32.const 10) (i32.load8_u offset=28 (local.get $packets)))))))
      (loop $l (br_if $l (i64.lt_s (call $now) (local.get $until))))"""
    module = loaded(guest(body, imports=[NOW]))
    run(module, slots_of(udp(b"\5")))
    with pytest.raises(WasmError, match="longer than"):
        run(module, slots_of(udp(b"\x50")))
    run(module, slots_of(udp(b"\5")))


@pytest.mark.parametrize("export", ["status", "take_state", "start", "stop"])
def test_every_call_has_an_end(export: str) -> None:
    code = guest("", f'(func (export "{export}") {FOREVER})')
    module = configured(code)
    with pytest.raises(WasmError, match="longer than 1"):
        getattr(module, export)()


def test_to_configure_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm_module, "_CONFIGURE_S", 0.1)
    export = (
        '(func (export "configure") (param i32 i32) (result i32) (loop $l (br $l)) (i32.const 0))'
    )
    for code in (guest("", export), guest("", "(func $s (loop $l (br $l)))", "(start $s)")):
        with pytest.raises(WasmError, match="longer than"):
            configured(code)


def test_nobody_watches_where_nobody_calls() -> None:
    run(loaded(guest("")), slots_of(udp()))
    deadline = time.monotonic() + 5
    while any(t.name == "wasm-watchdog" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run(loaded(guest("")), slots_of(udp()))


def test_memory_ends_where_the_manifest_says() -> None:
    grow = """(func (export "take_state")
      (i32.store (i32.const 0) (memory.grow (i32.const 400)))
      (i32.store (i32.const 4) (memory.grow (i32.const 16)))
      (call $answer (i32.const 0) (i32.const 8)))"""
    state = loaded(guest("", grow, imports=[ANSWER]), memory_mb=4).take_state()
    assert struct.unpack("<ii", state) == (-1, 32)
    with pytest.raises(WasmError, match="memory"):
        loaded(guest(""), memory_mb=1)
    with pytest.raises(WasmError, match="answers more than"):
        loaded(guest("", '(func (export "take_state") (loop $l'
                     "(call $answer (i32.const 0) (i32.const 1000000)) (br $l)))",
                     imports=[ANSWER]), memory_mb=4).take_state()  # fmt: skip


NO_MODULES = {
    "nothing": (b"", "no WebAssembly"),
    "something else": (b"\x7fELF" + bytes(100), "no WebAssembly"),
    "a component": (b"\0asm\x0d\0\1\0", "no WebAssembly"),
    "wrong text": (b"(module (func (i32.add)))", "no WebAssembly"),
    "no exports": (b"(module)", "does not export alloc, anabranch_abi, memory, process"),
    "another interface": (guest("").replace(b"(i32.const 1))", b"(i32.const 2))", 1), "version 2"),
    "a wrong signature": (
        guest("", '(func (export "tick") (param i32))'), r"tick must be \(\) -> \(\)"),
    "no function": (
        guest("").replace(b'(func (export "process")', b'(func (export "other")')
        .replace(b"(module", b'(module (global (export "process") i32 (i32.const 0))'),
        "process must be"),
    "no memory": (
        guest("").replace(b'(memory (export "memory") 32)',
                          b'(global (export "memory") i32 (i32.const 0))'), "is no memory"),
    "WASI": (
        guest("", imports=['(import "wasi_snapshot_preview1" "fd_write" (func (param i32)))']),
        r"imports wasi_snapshot_preview1\.fd_write: of anabranch there are log, now"),
    "a host function of another type": (
        guest("", imports=['(import "anabranch" "now" (func (result i32)))']), "incompatible"),
    "a start function that traps": (
        guest("", "(func $s (unreachable))", "(start $s)"), "unreachable"),
    "a start function that logs": (
        guest("", "(func $s (call $log (i32.const 1) (i32.const 0) (i32.const 0)))", "(start $s)",
              imports=[LOG]), "before there is an instance"),
    "an allocator without memory": (
        guest("").replace(b"(global.get $heap)", b"(i32.const 0)", 1), "alloc gives no"),
    "an allocator that lies": (
        guest("").replace(b"(i32.const 65536)", b"(i32.const -100)", 1), "bytes of memory"),
    "too much room": (
        guest("", '(func (export "room") (result i32) (i32.const 2000))'), "2000 bytes a packet"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_MODULES)
def test_what_is_no_module_is_refused_with_a_reason(case: str) -> None:
    code, words = NO_MODULES[case]
    with pytest.raises(WasmError, match=words):
        loaded(code)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\0asm\1\0\0\0", b"(module "]))
def test_any_bytes_are_a_module_or_an_error(data: bytes, magic: bytes) -> None:
    with pytest.raises(WasmError):
        loaded(magic + data)


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_module_is_one_or_an_error(data: st.DataObject) -> None:
    """Bytes of a good one are changed: whatever comes of it, it is an error of ours or none."""
    import wasmtime

    code = bytearray(wasmtime.wat2wasm(guest(VERDICT_BY_TTL, imports=[ANSWER]).decode()))
    for _ in range(data.draw(st.integers(1, 4))):
        code[data.draw(st.integers(8, len(code) - 1))] = data.draw(st.integers(0, 255))
    slots = slots_of(udp(b"x", ttl=1), udp(b"y", ttl=2))
    with suppress(ModuleError):
        run(loaded(bytes(code)), slots)
    assert len(leaving(slots)) <= 2


def test_ipv6_and_what_is_longer_than_the_others() -> None:
    body = each("(i32.store8 (local.get $verdicts) (i32.const 2))")
    six = ("2001:db8::1", "2001:db8::2")
    packets = [ip(17, *six, udp_segment(b"x" * 900, *six, (1, 2))), udp(b"")]
    slots = slots_of(*packets)
    run(loaded(guest(body)), slots)
    assert leaving(slots) == packets


def test_room_to_grow() -> None:
    """It makes a packet a hundred bytes longer: there is room if it asked for it."""
    body = each("""
      (i32.store8 offset=3 (local.get $packets)
        (i32.add (i32.load8_u offset=3 (local.get $packets)) (i32.const 100)))
      (i32.store8 (local.get $verdicts) (i32.const 2))""")
    packet = udp(b"abc")
    slots = slots_of(packet)
    run(loaded(guest(body, '(func (export "room") (result i32) (i32.const 200))')), slots)
    (longer,) = leaving(slots)
    assert is_right(longer)
    assert (len(longer), longer[28:31]) == (131, b"abc")
    slots = slots_of(packet)
    with pytest.raises(ModuleError, match="length cannot be"):
        run(loaded(guest(body)), slots)


def test_the_document_has_every_export_and_import() -> None:
    document = (Path(__file__).parents[3] / "docs/protocols/wasm.md").read_text()
    names = {*wasm_module._EXPORTS, *WasmModule(b"")._imports()}
    assert {name for name in names if f"`{name}`" not in document} == set()
