"""The transcoder: what is asked, what becomes of it on a command line, and ffmpeg itself."""

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.films import duration, make_film, probed

from anabranch.services.blocks.transcoder import Container, Transcoder, TranscodingError
from anabranch.services.transcoding import command
from anabranch.services.transcoding.request import Answer, Facts, Request, Verb
from anabranch.services.transcoding.service import TranscodingLimits, TranscodingService

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error(data: bytes) -> None:
    for parse in (Request.parse, Answer.parse):
        try:
            parse(data)
        except TranscodingError:
            continue


@given(st.fixed_dictionaries({}, optional={
    "job": st.none() | st.integers() | st.text(max_size=3) | st.booleans(),
    "do": st.sampled_from([*Verb, "x", None, 3]),
    "container": st.sampled_from([*Container, "-i /etc/passwd", None]),
    "at": st.none() | st.floats() | st.integers() | st.text(max_size=5) | st.booleans(),
}))  # fmt: skip
def test_a_request_has_nothing_but_numbers_and_words_of_ours(message: dict) -> None:
    try:
        request = Request.parse(json.dumps(message).encode())
    except TranscodingError:
        return
    assert 0 <= request.at <= 86400
    assert Request.parse(request.encode()) == request


@given(st.integers(0, 2**50), st.text(max_size=600), st.floats(0, 1e6))
def test_answers_are_read_as_written(number: int, error: str, seconds: float) -> None:
    facts = Facts("mov", 1.0, 160, 120, 25.0, True)
    written = Answer(number, error, seconds, facts)
    read = Answer.parse(written.encode())
    assert (read.number, read.error, read.facts) == (number, error[:500], facts)
    assert len(written.encode()) <= 4096


def reader(data: bytes):
    return lambda offset, count: data[offset : offset + count]


def box(name: bytes, size: int = 8) -> bytes:
    return size.to_bytes(4, "big") + name + bytes(size - 8)


def test_kinds_are_told_by_first_bytes() -> None:
    start = box(b"ftyp", 32)
    assert command.kind_of(reader(start + box(b"free", 16) + box(b"moov"))) == "mov"
    assert command.kind_of(reader((b"\x47" + bytes(187)) * 5)) == "mpegts"
    assert command.kind_of(reader(b"\x1a\x45\xdf\xa3" + bytes(300))) == "matroska"
    for last in (start + box(b"mdat", 64) + box(b"moov"), start, start + bytes(64)):
        with pytest.raises(TranscodingError, match="faststart"):
            command.kind_of(reader(last))
    for other in (b"", b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\n", bytes(800)):
        with pytest.raises(TranscodingError, match="it is no MP4"):
            command.kind_of(reader(other))


@given(
    st.binary(max_size=900), st.sampled_from([b"", box(b"ftyp", 16), b"\x1a\x45\xdf\xa3", b"\x47"])
)
def test_any_file_has_a_kind_or_an_error(data: bytes, begin: bytes) -> None:
    with suppress(TranscodingError):
        assert command.kind_of(reader(begin + data)) in {"mov", "mpegts", "matroska"}


@given(st.recursive(st.none() | st.text(max_size=5) | st.integers() | st.floats(),
                    lambda each: st.lists(each, max_size=3) | st.dictionaries(
                        st.sampled_from(["streams", "format", "duration", "codec_type", "width"]),
                        each, max_size=3)))  # fmt: skip
def test_whatever_ffprobe_says(said: object) -> None:
    try:
        facts = command.facts_of("mov", json.dumps(said).encode())
    except TranscodingError:
        return
    assert facts.duration >= 0


def test_a_command_line_is_made_of_what_was_found() -> None:
    main = command.Source("mov", Facts("mov", 10.0, 1921, 1081, 100_000.0, False))
    clip = command.Source("mpegts", Facts("mpegts", 2.0, 320, 240, 0.0, True))
    argv = command.inserting(main, clip, 4.0, Container.TS)
    assert argv[argv.index("-protocol_whitelist") + 1] == "pipe"
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "-i"] == ["pipe:3", "pipe:4"]
    assert argv[-1] == "pipe:5"
    graph = argv[argv.index("-filter_complex") + 1]
    assert "scale=1920:1080" in graph
    assert "fps=60" in graph
    assert "anullsrc" in graph
    for facts in (Facts("mov", 1.0), Facts("mov", 1.0, 9000, 9000), Facts("mov", 0, 100, 100)):
        with pytest.raises(TranscodingError):
            command.converting(command.Source("mov", facts), Container.MP4)


# With ffmpeg itself


@asynccontextmanager
async def transcoder(**limits: float) -> AsyncIterator[Transcoder]:
    service = TranscodingService("alice", TranscodingLimits(**limits))
    its = service.open()
    try:
        yield Transcoder(its)
    finally:
        await service.close()
        its.close()


@contextmanager
def opened(*files: tuple[Path, int]) -> Iterator[list[int]]:
    descriptors = [os.open(path, flags, 0o600) for path, flags in files]
    try:
        yield descriptors
    finally:
        for each in descriptors:
            os.close(each)


WRITE = os.O_RDWR | os.O_CREAT | os.O_TRUNC


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("films")
    make_film(directory / "film.mp4", 2)
    make_film(directory / "clip.mp4", 1, size="64x64", rate=25, sound=False)
    make_film(directory / "film.ts", 1, more=())
    make_film(directory / "late.mp4", 1, more=())
    return directory


async def done(job) -> Answer:
    return await asyncio.wait_for(asyncio.wrap_future(job.future), 60)


@needs_ffmpeg
@pytest.mark.parametrize(("at", "container"), [(0.0, "mp4"), (1.0, "mp4"), (1.0, "ts"), (9, "mp4")])
async def test_a_clip_is_inserted(films: Path, tmp_path: Path, at: float, container: str) -> None:
    out = tmp_path / f"out.{container}"
    async with transcoder() as made:
        with opened((films / "film.mp4", os.O_RDONLY), (films / "clip.mp4", os.O_RDONLY),
                    (out, WRITE)) as (film, clip, target):  # fmt: skip
            job = made.insert(film, clip, into=target, at=at, container=Container(container))
        answer = await done(job)
    assert answer.seconds > 0
    assert duration(out) == pytest.approx(3.0, abs=0.25)
    kinds = {each["codec_type"]: each for each in probed(out)["streams"]}
    assert (kinds["video"]["width"], kinds["video"]["height"]) == (160, 120)
    assert kinds["audio"]["codec_name"] == "aac"


@needs_ffmpeg
async def test_reading_and_writing_begin_at_the_offset(films: Path, tmp_path: Path) -> None:
    shifted, out = tmp_path / "shifted", tmp_path / "out"
    shifted.write_bytes(b"head" + (films / "film.ts").read_bytes())
    async with transcoder() as made:
        with opened((shifted, os.O_RDONLY), (out, WRITE)) as (source, target):
            os.lseek(source, 4, os.SEEK_SET)
            facts = (await done(made.describe(source))).facts
            assert facts is not None
            assert (facts.kind, facts.width, facts.height, facts.sound) == (
                "mpegts",
                160,
                120,
                True,
            )
            os.lseek(source, 4, os.SEEK_SET)
            os.pwrite(target, b"head", 0)
            os.lseek(target, 4, os.SEEK_SET)
            await done(made.convert(source, into=target))
    assert out.read_bytes()[:4] == b"head"
    assert out.read_bytes()[8:12] == b"ftyp"


@needs_ffmpeg
async def test_what_cannot_be_done_says_why(films: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((films / "film.mp4").read_bytes()[:600])
    out = tmp_path / "out"
    async with transcoder(input_mb=1) as made:
        for source, flags, words in (
            (playlist, os.O_RDONLY, "it is no MP4"),
            (films / "late.mp4", os.O_RDONLY, "faststart"),
            (broken, os.O_RDONLY, "."),
            (films / "film.mp4", os.O_WRONLY, "cannot be read"),
            (Path("/dev/zero"), os.O_RDONLY, "regular files"),
            (tmp_path, os.O_RDONLY, "regular files"),
        ):
            with (
                opened((source, flags), (out, WRITE)) as (file, target),
                pytest.raises(TranscodingError, match=words),
            ):
                await done(made.convert(file, into=target))
        with (
            opened((films / "film.mp4", os.O_RDONLY), (out, os.O_RDONLY)) as (file, target),
            pytest.raises(TranscodingError, match="cannot be written"),
        ):
            await done(made.convert(file, into=target))
        large = tmp_path / "large"
        with large.open("wb") as file:
            file.truncate(2 << 20)
        with opened((large, os.O_RDONLY)) as (file,), pytest.raises(TranscodingError, match="MiB"):
            await done(made.describe(file))


@needs_ffmpeg
async def test_jobs_are_limited_cancelled_and_end_with_their_sandbox(
    films: Path, tmp_path: Path
) -> None:
    long = make_film(tmp_path / "long.mp4", 30, size="480x360", rate=30)
    out = tmp_path / "out"
    with opened((long, os.O_RDONLY), (out, WRITE)) as (file, target):
        async with transcoder(seconds=0.3) as made:
            with pytest.raises(TranscodingError, match=r"more than 0\.3 s"):
                await done(made.convert(file, into=target))
        os.lseek(file, 0, os.SEEK_SET)
        async with transcoder(output_mb=0) as made:
            with pytest.raises(TranscodingError):
                await done(made.convert(file, into=target))
        os.lseek(file, 0, os.SEEK_SET)
        async with transcoder(jobs=1, waiting=1) as made:
            running, waiting, refused = (made.convert(file, into=target) for _ in range(3))
            with pytest.raises(TranscodingError, match="try later"):
                await done(refused)
            waiting.cancel()
            running.cancel()
            for job in (waiting, running):
                with pytest.raises(TranscodingError, match="cancelled"):
                    await done(job)
            os.lseek(file, 0, os.SEEK_SET)
            last = made.convert(file, into=target)
            await asyncio.sleep(0.3)
        with pytest.raises(TranscodingError, match="no media any more"):
            await done(last)
        with pytest.raises(TranscodingError):
            made.describe(file)


async def test_one_who_talks_nonsense_is_hung_up_on(tmp_path: Path) -> None:
    for data, count in ((b"nonsense", 0), (b"x" * 5000, 0), (b"{}", 3)):
        service = TranscodingService("mallory", TranscodingLimits())
        its = service.open()
        file = os.open(tmp_path / "f", WRITE)
        socket.send_fds(its, [data], [file] * count)
        os.close(file)
        assert await asyncio.to_thread(its.recv, 10) == b""
        its.close()
        await service.close()


async def test_wrong_numbers_of_descriptors_and_of_jobs(tmp_path: Path) -> None:
    service = TranscodingService("mallory", TranscodingLimits())
    its = service.open()
    socket.send_fds(its, [Request(7, Verb.CONVERT).encode()], [])
    answer = Answer.parse(await asyncio.to_thread(its.recv, 4096))
    assert (answer.number, "2 descriptors" in answer.error) == (7, True)
    its.send(Request(9, Verb.CANCEL).encode())
    its.close()
    await service.close()
