"""Tenants' directories and logs."""

from pathlib import Path

from anabranch.services.archive import pack
from anabranch.services.tenancy import TenantLog, home_of

MODULE = Path(__file__).parents[2] / "src/anabranch/services/modules/netmonitor"


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    assert home_of(tmp_path, "alice-2").path == tmp_path / "alice-2"
    strange = {
        home_of(tmp_path, name).path for name in ("../bob", "/etc", "a/b", "..", "", "ä" * 99)
    }
    assert len(strange) == 6
    assert all(path.parent == tmp_path and ".." not in path.name for path in strange)


def test_code_is_unpacked_once_and_forgotten(tmp_path: Path) -> None:
    home = home_of(tmp_path, "alice")
    home.make()
    archive = pack(MODULE)
    one, manifest = home.unpack(archive, b"\1" * 32)
    (one / "mark").touch()
    again, _ = home.unpack(archive, b"\1" * 32)
    assert again == one
    assert (again / "mark").exists()
    assert manifest.name == "NetServ.apps.NetMonitor"
    other, _ = home.unpack(archive, b"\2" * 32)
    home.forget_code(frozenset({other.name}))
    assert [each.name for each in home.code.iterdir()] == [other.name]


def test_an_image_is_made_sparse_and_grown(tmp_path: Path) -> None:
    home = home_of(tmp_path, "alice")
    home.make()
    home.have_image(64)
    assert home.image.stat().st_size == 64 << 20
    assert home.image.stat().st_blocks * 512 < 8 << 20
    home.have_image(96)
    assert home.image.stat().st_size == 96 << 20
    home.have_image(32)
    assert home.image.stat().st_size == 96 << 20


def test_a_flood_of_lines_is_cut(tmp_path: Path) -> None:
    log = TenantLog("alice", tmp_path / "log")
    taken = sum(log.write(f"line {i}\x1b[31m", 1000.0) for i in range(1000))
    assert 50 <= taken <= 250
    assert log.dropped == 1000 - taken
    assert log.write("later", 1001.0)
    text = (tmp_path / "log").read_text()
    assert "\x1b" not in text
    assert text.rstrip().endswith("later")


def test_a_full_log_is_begun_anew(tmp_path: Path) -> None:
    log = TenantLog("alice", tmp_path / "log")
    (tmp_path / "log").write_text("x" * (5 << 20))
    log.write("new", 1000.0)
    assert (tmp_path / "log").read_text().endswith("new\n")
    assert (tmp_path / "log").stat().st_size < 100
    assert (tmp_path / "log.1").stat().st_size == 5 << 20
