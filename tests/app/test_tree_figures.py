"""``anabranch tree stats`` and ``explain``, against a director that says what it is told."""

from typing import Any, ClassVar

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from anabranch.app import tree_figures
from anabranch.app.cli import app

FIGURES: dict[str, Any] = {
    "round": 7,
    "whole": [{"stream": "news/high", "weight": 40, "values": {"loss": 1.25, "cumpktlost": 12}}],
    "children": [
        {"node": "relay", "streams": [{"stream": "*", "weight": 3, "values": {"cpu": 12.3}}]}
    ],
    "nodes": [{"node": "root", "streams": []}],
    "present": {"relay": "root"},
    "diagnoses": [
        {
            "node": "leaf1",
            "stream": "news/high",
            "metric": "loss",
            "severity": "danger",
            "suffer": "most",
            "share": 0.75,
        }
    ],
    "lowered": [{"node": "leaf1", "stream": "news/high"}],
    "acting": False,
}
DEED = {
    "time": 0.0,
    "action": "leaf-added",
    "node": "leaf3",
    "outcome": "done",
    "data": {"parent": "relay", "reason": "the load is 90% of the leaves' capacity"},
}


class Director:
    """Stands in for the HTTP client of the command line."""

    answers: ClassVar[dict[str, Any]] = {
        "/api/tree/statistics": FIGURES,
        "/api/tree/history?node=leaf3": [DEED],
        "/api/tree/history?node=a%2F%5Bb%5D": [],
    }

    def __init__(self, _config: object) -> None:
        pass

    def request(self, method: str, path: str) -> Any:
        assert method == "GET"
        return self.answers[path]


@pytest.fixture(autouse=True)
def director(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_figures, "Client", Director)
    screen(monkeypatch, 200)


def screen(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(tree_figures, "out", Console(highlight=False, width=width))


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, ["tree", *words])
    assert result.exit_code == 0, result.output
    return result


def test_figures_troubles_and_that_nothing_is_done() -> None:
    text = run("stats").output
    for words in ("news/high", "1.2", "12.3", "below relay", "lower rendition of news/high"):
        assert words in text
    assert "danger: loss of news/high at leaf1 (most, 75%)" in text
    assert "only told" in text
    assert '"round": 7' in run("stats", "--json").output


def test_figures_on_a_narrow_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch, 40)
    lines = run("stats").output.splitlines()
    assert [line.rstrip() for line in lines[:4]] == [
        "all",
        "  news/high of 40: Loss % 1.2, Lost 12",
        "below relay",
        "  * of 3: CPU % 12.3",
    ]
    screen(monkeypatch, 80)
    assert "Stream" in run("stats").output.splitlines()[1]


def test_why_a_node_was_started() -> None:
    text = run("explain", "leaf3").output
    assert "leaf-added leaf3: the load is 90% of the leaves' capacity (done) parent=relay" in text
    assert "Nothing was done with a/[b] but by operators." in run("explain", "a/[b]").output
