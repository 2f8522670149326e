"""What every benchmark prints, and what the doctor finds."""

import json
import socket
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.app.bench.report import Peer, Result, percentiles, report, sampled
from anabranch.app.config import load_config
from anabranch.app.doctor import Finding, _ipv6, examine
from anabranch.host.addresses import ipv6

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@given(SAMPLES)
def test_percentiles_are_in_order_and_within_the_samples(samples: list[float]) -> None:
    p50, p95, most = percentiles(samples)
    slack = 1e-6 * max(samples)
    assert min(samples) - slack <= p50 <= p95 + slack
    assert p95 <= most + slack
    assert most == max(samples)
    assert sum(s <= p50 + slack for s in samples) >= len(samples) / 2
    assert percentiles(samples[::-1]) == (p50, p95, most)


def test_percentiles_of_few_samples() -> None:
    assert percentiles([7.0]) == (7.0, 7.0, 7.0)
    assert percentiles([1.0, 3.0])[0] == 2.0
    assert percentiles(list(map(float, range(101)))) == (50.0, 95.0, 100.0)


@given(SAMPLES)
def test_a_report_has_one_shape(samples: list[float]) -> None:
    rows = [
        sampled("first_ms", "ms", samples, target="p50 <= 800", peer=Peer("alone", 1.0)),
        Result("rss", "MB", 1, value=0.0),
    ]
    made = json.loads(json.dumps(report("first-frame", rows)))
    assert list(made) == ["bench", "date", "machine", "results"]
    assert made["machine"].keys() == {"cpu", "cores", "memory_gib", "kernel", "python"}
    first, second = made["results"]
    assert list(first) == ["metric", "unit", "n", "p50", "p95", "max", "target", "peer"]
    assert first["n"] == len(samples)
    assert second == {"metric": "rss", "unit": "MB", "n": 1, "value": 0.0}


def test_the_doctor_has_a_remedy_for_all_that_is_not_well() -> None:
    findings = examine(load_config())
    assert findings[0].what == "configuration"
    assert all(finding.what for finding in findings)
    assert all(finding.remedy for finding in findings if finding.state != "ok")
    assert {finding.state for finding in findings} <= {"ok", "lacks", "fails"}
    assert findings[0].as_dict().keys() == {"state", "what", "remedy"}


@pytest.mark.parametrize(
    ("state", "public", "kind", "words", "is_well"),
    [
        ("on", "2001:db8::1", "anabranch", "viewers by IPv6, too", True),
        ("on", "2001:db8::1", "janus", "Janus takes viewers by IPv4 alone", False),
        ("on", "auto", "anabranch", "no lasting IPv6 address", True),
        ("absent", "auto", "anabranch", "a kernel without IPv6", True),
        ("disabled", "auto", "anabranch", "net.ipv6.conf.all.disable_ipv6 is 1", False),
    ],
)
def test_the_doctor_says_why_no_viewer_comes_by_ipv6(
    monkeypatch: pytest.MonkeyPatch, state: str, public: str, kind: str, words: str, is_well: bool
) -> None:
    monkeypatch.setattr("anabranch.app.doctor.ipv6", lambda: state)
    monkeypatch.setattr("anabranch.app.public.global_addresses_6", lambda but: [])
    monkeypatch.setenv("ANABRANCH_PUBLIC_ADDRESS", public)
    monkeypatch.setenv("ANABRANCH_LEAF", kind)
    (finding,) = list(_ipv6(load_config()))
    assert words in finding.what
    assert (finding.state == "ok") == is_well
    assert bool(finding.remedy) != is_well


def test_the_doctor_says_nothing_of_ipv6_where_nobody_shall_come_from_elsewhere() -> None:
    assert list(_ipv6(load_config())) == [] or ipv6() != "on"


def test_a_console_port_that_is_taken_by_ipv6_alone_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as taken:
        monkeypatch.setenv("ANABRANCH_LISTEN", f"[::]:{taken.getsockname()[1]}")
        found = [each.what for each in examine(load_config()) if each.state == "fails"]
        assert any("(console) is taken" in what for what in found)


def test_the_doctor_sees_missing_programs_taken_ports_and_a_wrong_tree(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    (here / "anabranch.yaml").write_text("nodes: [{name: root, role: root}]")
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    monkeypatch.setattr("anabranch.app.doctor.WORKER_PYTHON", str(here / "none"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("ANABRANCH_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        findings = examine(load_config())
    failed = {finding.what: finding.remedy for finding in findings if finding.state == "fails"}
    assert failed["configuration: a tree without a leaf serves nobody"]
    assert failed["ffmpeg is missing: no source can be read"] == "apt-get install ffmpeg"
    assert any("GStreamer cannot be asked" in what for what in failed)
    assert any("(console) is taken" in what for what in failed)


def test_the_doctor_sees_that_publishers_cannot_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANABRANCH_PORTS__WHIP", str(other.getsockname()[1]))
        (finding,) = [each for each in examine(load_config()) if "(WHIP)" in each.what]
    assert (finding.state, finding.what.endswith("is taken")) == ("lacks", True)
    assert "ports.whip" in finding.remedy


def about_the_leaf_server() -> list[Finding]:
    return [finding for finding in examine(load_config()) if "anabranch-leaf" in finding.what]


def test_the_doctor_runs_the_leaf_server(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    program = here / "leaf"
    monkeypatch.setenv("ANABRANCH_LEAF_SERVER", str(program))
    monkeypatch.setenv("ANABRANCH_LEAF", "anabranch")
    for script, state, what in (
        ("echo anabranch-leaf 1.2.3", "ok", "anabranch-leaf 1.2.3"),
        ("echo libssl.so.3: not there >&2; exit 127", "fails", "libssl.so.3: not there"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        (finding,) = about_the_leaf_server()
        assert (finding.state, what in finding.what) == (state, True)
    program.write_text("no program")
    (finding,) = about_the_leaf_server()
    assert (finding.state, "cannot be run" in finding.what) == ("fails", True)
    monkeypatch.setenv("ANABRANCH_LEAF", "janus")
    assert about_the_leaf_server()[0].state == "lacks"


def test_the_doctor_misses_the_leaf_server(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("ANABRANCH_LEAF_SERVER", str(here / "none"))
    for kind, state in (("anabranch", "fails"), ("janus", "lacks")):
        monkeypatch.setenv("ANABRANCH_LEAF", kind)
        found = {each.what for each in examine(load_config()) if each.state == state}
        assert f"$ANABRANCH_LEAF_SERVER: {here}/none cannot be executed" in found
