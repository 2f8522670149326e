"""No file and no variable of this machine reaches these tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a site of its own that was never up."""
    for name in [name for name in os.environ if name.startswith("ANABRANCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANABRANCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ANABRANCH_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("ANABRANCH_PUBLIC_ADDRESS", "none")
    return tmp_path
