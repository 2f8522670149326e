"""Turn what scripts/prove measured into docs/proofs/<date>.md."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(work: Path, target: Path) -> None:
    reports = [json.loads(path.read_text()) for path in sorted(work.glob("*.json"))]
    benches = [report for report in reports if "bench" in report]
    soak = next((report for report in reports if "minutes" in report), None)
    date, machine = benches[0]["date"], benches[0]["machine"]
    lines = [
        f"# Proofs of {date}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, kernel"
        f" {machine['kernel']}, Python {machine['python']}. Written by `scripts/prove`.",
        "",
        *tests(work / "tests.xml"),
        *(soaked(soak) if soak else []),
        "## Benchmarks",
        "",
        "| metric | unit | n | value or p50 / p95 / max | target | peer |",
        "|---|---|---|---|---|---|",
        *(row(result) for report in benches for result in report["results"]),
        "",
    ]
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{date}.md").write_text("\n".join(lines))
    (target / f"{date}.json").write_text(json.dumps(benches, indent=1) + "\n")
    sys.stdout.write(f"{target / date}.md\n")


def tests(path: Path) -> list[str]:
    suite = ElementTree.parse(path).getroot().find("testsuite")  # noqa: S314  # pytest wrote it
    assert suite is not None
    figures = {
        name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
    }
    text = ", ".join(f"{count} {name}" for name, count in figures.items())
    return ["## Tests", "", f"{text}, in {float(suite.get('time', '0')):.0f} s.", ""]


def soaked(soak: dict) -> list[str]:
    lines = [
        "## Soak",
        "",
        f"{soak['minutes']:g} minutes, {soak['viewings']} viewings by a foreign WebRTC stack"
        f" ({soak['frames']} frames decoded), {soak['left']} of them left properly, the others"
        " vanished. Memory and descriptors before and after:",
        "",
        "| process | RSS, MB | descriptors | threads |",
        "|---|---|---|---|",
    ]
    for name, before in soak["before"].items():
        after = soak["after"][name]
        cells = (f"{before[key]} → {after[key]}" for key in ("rss_mb", "fds", "threads"))
        lines.append(f"| {name.partition(':')[0]} | {' | '.join(cells)} |")
    return [*lines, ""]


def row(result: dict) -> str:
    peer = result.get("peer")
    value = result.get("value")
    shown = value if value is not None else f"{result['p50']} / {result['p95']} / {result['max']}"
    if "p99" in result:
        shown = f"{shown}; p99 {result['p99']}"
    beside = f"{peer['value']} ({peer['name']})" if peer else ""
    return (
        f"| {result['metric']} | {result['unit']} | {result['n']} | {shown} |"
        f" {result.get('target', '')} | {beside} |"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
