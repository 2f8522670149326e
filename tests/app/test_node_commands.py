"""``anabranch node``: what is wrong is told in the words of the command line."""

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from anabranch.app import terminal
from anabranch.app.cli import app


@pytest.mark.parametrize("hours", ["-1", "0", "nan", "9000"])
def test_hours_that_cannot_be(monkeypatch: pytest.MonkeyPatch, here: Path, hours: str) -> None:
    monkeypatch.setattr(terminal, "err", Console(stderr=True, highlight=False, width=200))
    result = CliRunner().invoke(app, ["node", "invite", "far", "--hours", hours])
    assert result.exit_code == 1, result.output
    assert result.stderr == (
        f"anabranch: --hours is more than 0 and at most 8784, not {float(hours):g}\n"
    )
