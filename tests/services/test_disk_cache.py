"""The cache on disk: its quota, its order, and what a crash leaves."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anabranch.services.blocks.disk_cache import (
    HEAD_BYTES,
    CacheError,
    CacheFullError,
    DiskCache,
)

ROOM = HEAD_BYTES + 1000


def put(cache: DiskCache, key: str, body: bytes, length: int | None = None) -> None:
    growing = cache.begin(key, {"type": "x"}, length)
    try:
        growing.write(body)
        growing.commit()
    finally:
        growing.close()


def body_of(cache: DiskCache, key: str) -> bytes | None:
    kept = cache.get(key)
    if kept is None:
        return None
    with kept:
        return kept.read(0, kept.length)


def test_objects_survive_a_restart_in_their_order(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 3 * ROOM)
    for number, key in enumerate("abc"):
        put(cache, key, key.encode() * 1000, 1000)
        path = next(p for p in tmp_path.iterdir() if p.stat().st_mtime_ns > 10**12)
        os.utime(path, ns=(number, number))  # clocks are coarse
    again = DiskCache(tmp_path, 3 * ROOM)
    assert body_of(again, "a") == b"a" * 1000
    put(again, "d", b"d" * 1000, 1000)
    assert body_of(again, "b") is None
    assert [body_of(again, key) is not None for key in "acd"] == [True] * 3
    assert again.figures().evicted == 1
    assert again.used == 3 * ROOM


def test_what_is_on_its_way_can_be_read_and_then_is_found(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10 * ROOM)
    growing = cache.begin("a", {"type": "x"})
    growing.write(b"first ")
    assert growing.read(0, 100) == b"first "
    assert cache.get("a") is None
    growing.write(b"second")
    growing.commit()
    assert growing.read(6, 100) == b"second"
    growing.close()
    kept = cache.get("a")
    assert kept is not None
    with kept:
        assert kept.description == {"type": "x"}
        cache.remove("a")
        assert kept.read(0, 5) == b"first"  # it was opened before
    assert cache.get("a") is None
    assert cache.used == 0
    assert not list(tmp_path.iterdir())


def test_what_has_no_room_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 2 * ROOM)
    put(cache, "a", b"x" * 1000)
    with pytest.raises(CacheFullError):
        cache.begin("b", {}, 2 * ROOM)
    assert body_of(cache, "a") is not None
    growing = cache.begin("b", {})
    growing.write(b"y" * 500)
    with pytest.raises(CacheFullError):
        growing.write(b"y" * 2 * ROOM)
    assert growing.read(0, 3) == b"yyy"  # who reads it is not cut off
    growing.close()
    assert cache.used == ROOM
    assert body_of(cache, "a") is not None  # it did not go in vain
    with pytest.raises(CacheError):
        cache.begin("c" * 5000, {}, 1)
    assert len(list(tmp_path.iterdir())) == 1


def test_held_room_counts(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 2 * ROOM)
    first, second = cache.begin("a", {}, 1000), cache.begin("b", {}, 1000)
    with pytest.raises(CacheFullError):
        cache.begin("c", {}, 1)
    first.close()
    cache.begin("c", {}, 1).close()
    second.close()


def test_what_is_cut_short_foreign_or_unfinished_is_not_served(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10 * ROOM)
    for key in "abc":
        put(cache, key, b"body")
    (tmp_path / "7.partial").write_bytes(b"x" * 9000)
    (tmp_path / "link.object").symlink_to("/etc/hostname")
    names = {key: cache_file(tmp_path, key) for key in "abc"}
    os.truncate(names["a"], HEAD_BYTES + 1)
    names["b"].write_bytes(b"[" * HEAD_BYTES)
    names["c"].replace(names["a"])  # another key's
    again = DiskCache(tmp_path, 10 * ROOM)
    assert [again.get(key) for key in "abc"] == [None] * 3
    assert not list(tmp_path.iterdir())
    assert again.used == 0


def cache_file(directory: Path, key: str) -> Path:
    found = [p for p in directory.glob("*.object")
             if not p.is_symlink() and f'["{key}"'.encode() in p.read_bytes()]  # fmt: skip
    return found[0]


def test_descriptions_change_in_place(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10 * ROOM)
    put(cache, "a", b"body")
    cache.describe("a", {"etag": "2"})
    cache.describe("absent", {})
    kept = DiskCache(tmp_path, 10 * ROOM).get("a")
    assert kept is not None
    with kept:
        assert kept.description == {"etag": "2"}
        assert kept.read(0, 10) == b"body"


def test_what_another_wrote_through_the_descriptor(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 3 * ROOM)
    growing = cache.begin("a", {})
    growing.rewind()
    os.write(growing.fileno(), b"by ffmpeg")
    growing.adopt()
    growing.seal()
    growing.commit()
    growing.close()
    assert body_of(cache, "a") == b"by ffmpeg"
    growing = cache.begin("b", {})
    growing.rewind()
    os.write(growing.fileno(), b"x" * 4 * ROOM)
    with pytest.raises(CacheFullError):
        growing.adopt()
    growing.close()
    assert body_of(cache, "b") is None


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError):
        DiskCache(tmp_path / "file", 1000)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=20))
def test_a_head_that_was_damaged_is_another_object_or_none(at: int, damage: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="ab-cache-") as name:
        put(DiskCache(Path(name), 10 * ROOM), "key", b"body")
        (path,) = Path(name).iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
        kept = DiskCache(Path(name), 10 * ROOM).get("key")
        if kept is not None:
            with kept:
                assert kept.read(0, 100) == b"body"


class CacheMachine(RuleBasedStateMachine):
    """Whatever is done: what is found is what was put, and the quota holds."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="ab-cache-")
        self.path = Path(self.directory.name)
        self.cache = DiskCache(self.path, 4 * ROOM)
        self.put_last: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.directory.cleanup()

    @rule(key=st.sampled_from("abcdef"), size=st.integers(0, 6 * ROOM), known=st.booleans())
    def put(self, key: str, size: int, known: bool) -> None:
        body = os.urandom(4) * (size // 4)
        try:
            put(self.cache, key, body, len(body) if known else None)
        except CacheFullError:
            return
        self.put_last[key] = body

    @rule(key=st.sampled_from("abcdef"))
    def get(self, key: str) -> None:
        found = body_of(self.cache, key)
        assert found is None or found == self.put_last[key]

    @rule(key=st.sampled_from("abcdef"))
    def remove(self, key: str) -> None:
        self.cache.remove(key)
        assert body_of(self.cache, key) is None

    @rule()
    def restart(self) -> None:
        self.cache = DiskCache(self.path, 4 * ROOM)

    @invariant()
    def the_quota_holds(self) -> None:
        there = sum(path.stat().st_size for path in self.path.iterdir())
        assert there == self.cache.used <= 4 * ROOM


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestCacheMachine = CacheMachine.TestCase
