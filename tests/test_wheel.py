"""The hook that puts the leaf server into the wheel: what is in it, and for which machines."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[1]
_SERVER = "anabranch/media/bin/anabranch-leaf"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """As much of the checkout as a wheel needs, on a machine whose Rust is too old."""
    root = tmp_path / "sources"
    for name in (
        *("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"),
        *("scripts/leaf.sh", "leaf/Cargo.toml", "src/anabranch/__init__.py"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_CHECKOUT / name, root / name)
    manifest = root / "leaf/Cargo.toml"
    text = manifest.read_text()
    assert 'rust-version = "1.' in text
    manifest.write_text(text.replace('rust-version = "1.', 'rust-version = "1000.'))
    return root


def built_wheel(root: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root / "dist")],
        cwd=root,
        check=True,
        capture_output=True,
    )
    (wheel,) = (root / "dist").iterdir()
    return wheel


def test_a_wheel_with_the_leaf_server_is_for_machines_of_its_kind(sources: Path) -> None:
    server = sources / "src" / _SERVER
    server.parent.mkdir(parents=True)
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    wheel = built_wheel(sources)
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{machine}.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo(_SERVER).external_attr >> 16 & 0o111 == 0o111


def test_without_rust_the_wheel_has_no_leaf_server_and_is_for_any_machine(sources: Path) -> None:
    wheel = built_wheel(sources)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert _SERVER not in archive.namelist()


def test_a_build_that_fails_makes_no_wheel(sources: Path) -> None:
    manifest = sources / "leaf/Cargo.toml"
    manifest.write_text(manifest.read_text().replace('"1000.', '"1.'))
    (sources / "leaf/crates.lock").write_text("")  # and no members of the workspace
    with pytest.raises(subprocess.CalledProcessError) as failed:
        built_wheel(sources)
    assert b"workspace member" in failed.value.stderr
