"""Janus' configuration, and what is read out of its statistics, whatever they are."""

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.media import janus_config
from anabranch.media.janus_config import write_configuration
from anabranch.media.janus_figures import read_handle_info
from anabranch.media.leaf import LeafPlace, ViewerStatistics

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    ["webrtc", "media", "0", "stats", "out", "in", "bytes", "packets", "nacks", "rtcp", "main",
     "type", "lost-by-remote", "jitter-remote", "rtt"]
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)
)


def info(medium: Any) -> dict[str, Any]:
    return {"webrtc": {"media": {"0": medium}}}


def test_figures_of_all_media_are_summed_and_the_delay_is_the_pictures() -> None:
    media = {
        "0": {
            "type": "audio",
            "rtcp": {"main": {"lost-by-remote": 1, "jitter-remote": 9, "rtt": 9}},
            "stats": {"in": {"nacks": 0}, "out": {"bytes": 100, "packets": 2}},
        },
        "1": {
            "type": "video",
            "rtcp": {"main": {"lost-by-remote": 2, "jitter-remote": 3, "rtt": 4}},
            "stats": {"in": {"nacks": 5}, "out": {"bytes": 1000, "packets": 7}},
        },
    }
    assert read_handle_info({"webrtc": {"media": media}}) == ViewerStatistics(1100, 9, 3, 5, 3, 4)
    assert read_handle_info({}) == ViewerStatistics(0, 0, 0, 0, None, None)


@given(st.dictionaries(KEYS, JSON) | JSON.map(info) | st.dictionaries(KEYS, JSON).map(info))
def test_any_json_gives_figures_or_none(given_: dict[str, Any]) -> None:
    found = read_handle_info(given_)
    counts = (found.bytes_sent, found.packets_sent, found.packets_lost, found.nacks)
    assert all(isinstance(count, int) for count in counts)
    for delay in (found.jitter_ms, found.rtt_ms):
        assert delay is None or abs(delay) < 2**53


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LeafPlace:
    monkeypatch.setattr(janus_config, "find_module", lambda kind, name: Path("/lib") / kind / name)
    return LeafPlace(
        name="leaf1",
        directory=tmp_path / "janus",
        run_id="run",
        netns=None,
        media_addresses=("10.97.0.2", "10.97.0.6"),
        public_addresses=("192.0.2.1", "192.0.2.2"),
        media_ports=(20000, 20499),
        inlet_interface="lo",
        inlet_ports=(21000, 21099),
    )


def test_the_configuration_is_nobody_elses_to_read(place: LeafPlace) -> None:
    old = place.directory / "janus.jcfg"
    old.parent.mkdir()
    old.write_text("left behind, and open to all")
    old.chmod(0o644)
    for _ in range(2):  # a second start finds what the first left
        write_configuration(place, "the-secret")
        files = [p for p in place.directory.rglob("*") if p.is_file() and not p.is_symlink()]
        assert {p.name for p in files} == {
            "janus.jcfg",
            "janus.transport.pfunix.jcfg",
            "janus.plugin.streaming.jcfg",
        }
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
        assert [p.name for p in files if "the-secret" in p.read_text()] == ["janus.jcfg"]


def test_the_configuration_says_what_the_settings_say(place: LeafPlace) -> None:
    write_configuration(place, "the-secret")
    text = (place.directory / "janus.jcfg").read_text()
    assert 'rtp_port_range = "20000-20499"' in text
    assert 'ice_enforce_list = "10.97.0.2,10.97.0.6"' in text
    assert 'nat_1_1_mapping = "192.0.2.1,192.0.2.2"' in text
    links = {p.name: p.readlink() for p in place.directory.rglob("*") if p.is_symlink()}
    assert links == {  # no other module is ever loaded
        "libjanus_streaming.so": Path("/lib/plugins/streaming"),
        "libjanus_pfunix.so": Path("/lib/transports/pfunix"),
    }
