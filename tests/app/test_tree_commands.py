"""``anabranch tree``: what is printed, and that whatever is wrong is one line."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from anabranch.app import cli, terminal, tree_commands
from anabranch.tree.plan_file import read_plan

YAML = """
fan_out: {root: 4}
nodes:
  - {name: root, role: root}
  - {name: relay1, role: relay}
  - {name: relay2, role: relay}
  - {name: leaf1, role: leaf}
links:
  - {between: [root, relay1], rate_mbit: 200}
  - {between: [relay1, relay2]}
  - {between: [relay1, leaf1]}
  - {between: [root, leaf1], redundant: true}
"""


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch, here: Path) -> Path:
    """A file, and consoles that write where the runner looks."""
    for module in (tree_commands, terminal):
        monkeypatch.setattr(module, "out", Console(highlight=False, width=200))
    monkeypatch.setattr(terminal, "err", Console(stderr=True, highlight=False, width=200))
    (here / "site.yaml").write_text(YAML)
    return here


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["tree", *arguments])


def fails(result: Result, words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_plan_for_people() -> None:
    lines = run("plan", "site.yaml").stdout.splitlines()
    assert [line.rstrip() for line in lines] == [
        "root root",
        "└── relay1 relay, 200 Mbit/s",
        "    └── leaf1 leaf, 100 Mbit/s",
        "redundancy link leaf1 - root, 100 Mbit/s",
        "pruned: relay2 leads to no leaf",
    ]


def test_the_example_of_the_document(site: Path) -> None:
    document = Path(__file__).parents[2] / "docs" / "tree.md"
    (site / "site.yaml").write_text(document.read_text().split("```yaml\n")[1].split("```")[0])
    lines = run("plan", "site.yaml").stdout.splitlines()
    assert lines[-2:] == [
        "redundancy link leaf1 - leaf2, 100 Mbit/s",
        "pruned: relay2 is not available",
    ]


@pytest.mark.parametrize("form", ["--json", "--xml"])
def test_a_plan_for_machines_that_is_used_again(site: Path, form: str) -> None:
    printed = run("plan", "site.yaml", form).stdout_bytes
    assert read_plan(printed).parents == {"relay1": "root", "leaf1": "relay1"}
    (site / "plan").write_bytes(printed)
    result = run("check", "plan", "site.yaml")
    assert (result.exit_code, result.stdout) == (0, "The plan fits.\n")
    assert run("plan", "site.yaml", form, "--present", "plan").stdout_bytes == printed


def test_a_plan_that_does_not_fit(site: Path) -> None:
    (site / "plan").write_text(run("plan", "site.yaml", "--json").stdout)
    (site / "site.yaml").write_text(YAML.replace("200", "20"))
    result = run("check", "plan", "site.yaml")
    assert result.exit_code == 0
    assert result.stdout == "! the link relay1 - root has 20 Mbit/s, not 200 as planned\n"
    (site / "site.yaml").write_text(YAML.replace("[relay1, leaf1]", "[relay2, leaf1]"))
    result = run("check", "plan", "site.yaml")
    assert (result.exit_code, result.stdout[0]) == (1, "✗")
    result = run("check", "plan", "site.yaml", "--json")
    assert result.exit_code == 1
    problem = json.loads(result.stdout)[0]
    assert (problem["kind"], problem["subject"]) == ("link-missing", "leaf1 - relay1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "site.yaml is wrong: there is nothing in it"),
        ("# no nodes yet", "site.yaml is wrong: there is nothing in it"),
        ("just words", "site.yaml is wrong: the file: names with values are wanted here"),
        ("nodes: [root]", "site.yaml is wrong: nodes.0: names with values are wanted here"),
        ("[", "site.yaml cannot be read: "),
        ("[" * 10_000, "site.yaml cannot be read: "),
        ("2001-99-99", "site.yaml cannot be read: "),
        ("{]", "Invalid JSON"),
        ("<description/>", "a tree has one root; here: none"),
        (YAML.replace("  - {between: [relay1, leaf1]}\n", ""), "the leaf leaf1 has no way"),
        (YAML.replace("role: root", "role: king"), "nodes.0.role: "),
        (YAML.replace("fan_out", "fanout"), "fanout: "),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "Field required"),
    ],
)
def test_descriptions_that_are_none(site: Path, content: str, words: str) -> None:
    (site / "site.yaml").write_text(content)
    fails(run("plan", "site.yaml"), words)


@pytest.mark.parametrize("form", ["--json", "--xml"])
def test_a_plan_is_no_description(site: Path, form: str) -> None:
    (site / "plan").write_bytes(run("plan", "site.yaml", form).stdout_bytes)
    fails(run("plan", "plan"), "plan is wrong: this is a plan, not what a tree is planned from")


def test_files_that_cannot_be_read(site: Path) -> None:
    fails(run("plan", "gone"), "gone cannot be read: No such file")
    fails(run("plan", "."), ". cannot be read: Is a directory")
    fails(run("plan", "site.yaml", "--json", "--xml"), "either --json or --xml")
    fails(run("check", "site.yaml", "site.yaml"), "site.yaml is wrong: the file: Invalid JSON")
    with (site / "large").open("wb") as file:
        file.truncate(tree_commands.MAX_BYTES + 1)
    fails(run("plan", "large"), "larger than")
