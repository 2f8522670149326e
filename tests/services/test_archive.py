"""Archives: what is packed comes out again, and nothing else does."""

import stat
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services import archive as archives
from anabranch.services.archive import Archive, pack
from anabranch.services.errors import ArchiveError, SignatureError
from anabranch.services.keys import PrivateKey
from anabranch.services.manifest import parse_manifest
from anabranch.services.ports import written

MANIFEST = """
name = "NetServ.apps.NetMonitor"
version = "1.0.0"
entry = "netmonitor:NetMonitor"
dependencies = ["numpy>=2"]
[[filters]]
protocol = "udp"
port = 5060
[resources]
memory_mb = 16
ports = [80]
"""
KEY = PrivateKey.generate()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "data" / "deep").mkdir(parents=True)
    (made / "__pycache__").mkdir()
    (made / "module.toml").write_text(MANIFEST)
    (made / "netmonitor.py").write_text("class NetMonitor: ...\n")
    (made / "data" / "deep" / "table.bin").write_bytes(bytes(range(256)) * 10)
    (made / "__pycache__" / "netmonitor.cpython-311.pyc").write_bytes(b"cache")
    (made / "old.abm").write_bytes(b"old")
    return made


def zip_of(files: dict[str, bytes], **changes: int) -> Archive:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = changes.get("mode", stat.S_IFREG | 0o644) << 16
            info.compress_type = changes.get("method", zipfile.ZIP_DEFLATED)
            opened.writestr(info, data)
    return Archive("", b"", written.getvalue())


def test_round_trip(source: Path, tmp_path: Path) -> None:
    signed = Archive.parse(bytes(pack(source).sign("janedoe", KEY)))
    signed.verify("janedoe", KEY.public)
    manifest = signed.unpack(tmp_path / "out")
    assert manifest.identity == "NetServ.apps.NetMonitor_1.0.0"
    assert manifest.filters[0].port == 5060
    assert manifest.resources.ports == (80,)
    there = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*"))
    assert there == ["data", "data/deep", "data/deep/table.bin", "module.toml", "netmonitor.py"]
    assert (tmp_path / "out/data/deep/table.bin").read_bytes() == bytes(range(256)) * 10


def test_ports_are_numbers_and_ranges() -> None:
    manifest = parse_manifest(MANIFEST.replace("[80]", '[80, "5060-5062", "80"]').encode())
    assert manifest.resources.ports == (80, 5060, 5061, 5062)
    assert written(manifest.resources.ports) == ["80", "5060-5062"]
    for bad in ("[0]", "[true]", '["x"]', '["9-8"]', '["1-65536"]', '"80"', '["1-5000"]', "80"):
        with pytest.raises(ArchiveError, match="ports"):
            parse_manifest(MANIFEST.replace("[80]", bad).encode())


def test_entries_in_webassembly(source: Path) -> None:
    (source / "module.toml").write_text(MANIFEST.replace("netmonitor:NetMonitor", "deep.wasm"))
    with pytest.raises(ArchiveError, match=r"deep\.wasm is not in"):
        pack(source)
    (source / "deep.wasm").write_bytes(b"")
    found = pack(source).manifest()
    assert [each.name for each in found.requirements] == ["numpy", "wasmtime"]
    for bad in ("../deep.wasm", "data/deep.wasm", ".wasm", "deep.so"):
        with pytest.raises(ArchiveError, match=r"FILE\.wasm"):
            parse_manifest(MANIFEST.replace("netmonitor:NetMonitor", bad).encode())


def test_packing_is_reproducible(source: Path) -> None:
    first = bytes(pack(source).sign("janedoe", KEY))
    (source / "netmonitor.py").touch()
    assert bytes(pack(source).sign("janedoe", KEY)) == first


def test_zip_tools_read_a_signed_archive(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.abm"
    path.write_bytes(bytes(pack(source).sign("janedoe", KEY)))
    with zipfile.ZipFile(path) as opened:
        assert "netmonitor.py" in opened.namelist()


def test_signature_binds_signer_and_body(source: Path) -> None:
    signed = pack(source).sign("janedoe", KEY)
    with pytest.raises(ArchiveError, match="signed by 'janedoe', not by 'mallory'"):
        signed.verify("mallory", KEY.public)
    with pytest.raises(SignatureError):
        signed.verify("janedoe", PrivateKey.generate().public)
    with pytest.raises(SignatureError):
        Archive("mallory", signed.signature, signed.body).verify("mallory", KEY.public)
    with pytest.raises(SignatureError):
        Archive("janedoe", signed.signature, signed.body + b"\0").verify("janedoe", KEY.public)
    with pytest.raises(ArchiveError, match="not signed"):
        pack(source).verify("janedoe", KEY.public)


@pytest.mark.parametrize(
    "name",
    ["../escape.py", "/etc/passwd", "a/../../b", "a\\b", "./a", "a//b", "C:x", "..", "x" * 300,
     "a/./b", "new\nline"],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError):
        zip_of({"module.toml": MANIFEST.encode(), name: b"x"}).unpack(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(kind: int) -> None:
    with pytest.raises(ArchiveError, match="link or a device"):
        zip_of({"a": b"/etc/passwd"}, mode=kind | 0o777).files()


def test_gigabytes_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zip_of({"zeros": bytes(archives.MAX_UNPACKED + 1)})
    assert len(bomb.body) < 100_000
    monkeypatch.setattr(archives, "_read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ArchiveError, match="unpacks to more"):
        bomb.files()


def test_a_size_that_lies_is_found_out() -> None:
    """The directory says 10 bytes, the file has a million: no more than 10 are ever read."""
    honest = zip_of({"zeros": bytes(1_000_000)}).body
    lying = honest.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(ArchiveError, match="no good"):
        Archive("", b"", lying).files()


def test_more_that_is_refused() -> None:
    with pytest.raises(ArchiveError, match="more than 1000"):
        zip_of({f"f{i}": b"" for i in range(1001)}).files()
    with pytest.raises(ArchiveError, match="needs a directory"):
        zip_of({"a": b"", "a/b": b""}).files()
    with pytest.raises(ArchiveError, match="not taken"):
        zip_of({"a": b"x" * 100}, method=zipfile.ZIP_LZMA).files()
    with pytest.raises(ArchiveError, match="at most"):
        Archive.parse(b"\x89ABM\r\n\x1a\n" + bytes(archives.MAX_ARCHIVE))
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        opened.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            opened.writestr("a", b"2")
    with pytest.raises(ArchiveError, match="twice"):
        Archive("", b"", written.getvalue()).files()


def test_packing_refuses_links_and_missing_parts(source: Path) -> None:
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArchiveError, match="link"):
        pack(source)
    (source / "link").unlink()
    (source / "netmonitor.py").unlink()
    with pytest.raises(ArchiveError, match=r"netmonitor\.py is not in"):
        pack(source)
    (source / "module.toml").unlink()
    with pytest.raises(ArchiveError, match=r"no module\.toml"):
        pack(source)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ('name = "NetServ.apps.NetMonitor"', 'name = "../up"'),
        ('version = "1.0.0"', 'version = "one"'),
        ('entry = "netmonitor:NetMonitor"', 'entry = "os.system"'),
        ("port = 5060", "port = 70000"),
        ("memory_mb = 16", "memory_gb = 16"),
        ("memory_mb = 16", "memory_mb = -1"),
        ('"numpy>=2"', '"numpy @ https://example.com/numpy.whl"'),
        ('protocol = "udp"', ""),
        ("[resources]", "[resources"),
    ],
)
def test_bad_manifests(change: str, complaint: str) -> None:
    assert change in MANIFEST
    text = MANIFEST.replace(change, complaint)
    with pytest.raises(ArchiveError, match=r"module\.toml"):
        zip_of({"module.toml": text.encode()}).manifest()


@given(st.binary(max_size=200))
def test_any_bytes_are_an_archive_or_an_error(data: bytes) -> None:
    for whole in (data, b"\x89ABM\r\n\x1a\n" + data):
        try:
            Archive.parse(whole).manifest()
        except ArchiveError:
            pass
        else:
            pytest.fail("some bytes are a module")


@given(st.data())
def test_a_damaged_archive_is_an_archive_or_an_error(data: st.DataObject) -> None:
    good = bytes(zip_of({"module.toml": MANIFEST.encode(), "a/b.py": b"x = 1\n" * 20}))
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        for name in Archive.parse(bytes(damaged)).files():
            assert not name.startswith("/")
            assert ".." not in name.split("/")
    except ArchiveError:
        pass


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_manifest_is_one_or_an_error(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        zip_of({"module.toml": data}).manifest()


def test_signature_can_be_checked_by_openssl(source: Path, tmp_path: Path) -> None:
    """What the documents say is signed is signed."""
    signed = pack(source).sign("janedoe", KEY)
    (tmp_path / "key.pem").write_text(KEY.public.pem())
    (tmp_path / "signature").write_bytes(signed.signature)
    document = b"anabranch module archive\0\x01\x00\x07janedoe" + signed.body
    (tmp_path / "document").write_bytes(document)
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin",
         "-in", "document", "-sigfile", "signature"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Verified Successfully" in done.stdout, done.stderr
