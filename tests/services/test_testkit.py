"""The test kit: a module on a capture."""

from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import is_right, tcp, udp
from tests.services.test_keepalive import notify

from anabranch.services import modules
from anabranch.services.batch import Batch
from anabranch.services.errors import ArchiveError, ModuleError
from anabranch.services.module import Module
from anabranch.services.testkit import CaptureError, TestKit, read_capture, write_capture

MODULES = Path(modules.__file__).parent
ETHERNET = b"\2" * 12


def test_a_bundled_module_on_a_capture(tmp_path: Path) -> None:
    packets = [udp(notify(i)) for i in range(5)]
    packets += [udp(b"else"), tcp(b"x"), udp(notify(9), ports=(1, 5061))]
    write_capture(tmp_path / "in.pcap", packets)
    kit = TestKit.of_directory(MODULES / "keepalive")
    report = kit.run(read_capture(tmp_path / "in.pcap"), batch=4)
    kit.close()
    assert (report.given, report.passed) == (6, 2)
    assert (report.replied, report.forwarded, report.dropped) == (5, 1, 0)
    assert report.status == {"answered": 5}
    assert not report.errors
    assert all(map(is_right, report.out))
    write_capture(tmp_path / "out.pcap", report.out)
    assert list(read_capture(tmp_path / "out.pcap")) == report.out


def test_captures_of_ethernet(tmp_path: Path) -> None:
    packet = udp(b"x")
    frames = [ETHERNET + b"\x08\0" + packet, ETHERNET + b"\x08\6" + b"arp" * 9,
              ETHERNET + b"\x81\0\0\5\x08\0" + packet, b""]  # fmt: skip
    for writer_kind, name in ((dpkt.pcap.Writer, "a.pcap"), (dpkt.pcapng.Writer, "a.pcapng")):
        with (tmp_path / name).open("wb") as file:
            writer = writer_kind(file)
            for frame in frames:
                writer.writepkt(frame, ts=1)
        assert list(read_capture(tmp_path / name)) == [packet, packet]


def test_errors_of_a_module_are_told() -> None:
    class Broken(Module):
        def process(self, batch: Batch) -> None:
            raise ValueError("this one")

    report = TestKit(Broken()).run([udp(b"")])
    assert report.errors == ["ValueError('this one')"]
    assert report.forwarded == 1


def test_bad_directories(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"module\.toml"):
        TestKit.of_directory(tmp_path)
    (tmp_path / "module.toml").write_text('name = "a"\nversion = "1"\nentry = "json:loads"\n')
    with pytest.raises(ModuleError, match="Python's"):
        TestKit.of_directory(tmp_path)


MAGICS = [b"", b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1\2\0\4\0", b"\n\r\r\n\x1c\0\0\0"]


@given(st.binary(max_size=200), st.sampled_from(MAGICS))
def test_any_file_is_a_capture_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, magic: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.pcap"
    path.write_bytes(magic + data)
    try:
        for packet in read_capture(path):
            assert packet
    except CaptureError:
        pass
