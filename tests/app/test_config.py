"""Configuration: defaults that are true, and one line that names what is wrong."""

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anabranch.app.config import Config, load_config, site_settings
from anabranch.core.errors import AnabranchError, UsageError
from anabranch.site.settings import Ports


def config(text: str | bytes = "", **overrides: object) -> Config:
    """Read ``text`` as the ``anabranch.yaml`` of the working directory."""
    path = Path("anabranch.yaml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(**overrides)


def test_the_shipped_file_says_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIR", "RUN_DIR", "PUBLIC_ADDRESS"):
        monkeypatch.delenv(f"ANABRANCH_{name}")
    defaults = load_config()
    shipped = files("anabranch.app").joinpath("anabranch.yaml").read_text()
    assert config(shipped).model_dump() == defaults.model_dump()
    for name in Config.model_fields:  # each is there, if only to be uncommented
        assert f"\n{name}:" in shipped or f"\n# {name}:" in shipped, name


def test_the_nearer_word_counts(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    text = "listen: 127.0.0.1:1\nports: {rtmp: 2, srt: 3-4}\nlog: {level: debug}"
    monkeypatch.setenv("ANABRANCH_PORTS__RTMP", "5")
    monkeypatch.setenv("ANABRANCH_KEYFRAME_ON_JOIN", "false")
    found = config(text, listen="127.0.0.1:6")
    assert (found.port, found.ports.rtmp, found.ports.srt) == (6, 5, "3-4")
    assert (found.log.level, found.log.format, found.keyframe_on_join) == ("debug", "auto", False)
    other = here / "other.yaml"
    other.write_text("site: other")
    monkeypatch.setenv("ANABRANCH_CONFIG", str(other))
    assert load_config().site == "other"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sit: main", "sit: Extra inputs"),
        ("ports: {rtpm: 1}", "ports.rtpm: Extra inputs"),
        ("nodes: [{name: root, role: root, rate: 1}]", "nodes.0.rate"),
        ("nodes: [{name: root, role: king}]", "nodes.0.role"),
        ("site: [a", "expected ',' or ']'"),
        ("- a\n- b", "NAME: VALUE"),
        ("hello", "NAME: VALUE"),
        ("1: 2", "NAME: VALUE"),
        ("site: !!python/name:os.system", "cannot be read"),
        ("a: \x01", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("site: Main", "'Main' is not allowed"),
        ("site: a23456789-123", "at most 12"),
        ("site: ''", "not allowed"),
        ("listen: 8080", "listen"),
        *((f"listen: '{x}'", "ADDRESS:PORT") for x in ("80", ":80", "a:", "a:0", "a:65536", "a:b")),
        *((f"ports: {{media: {x}}}", "ports.media") for x in ("9-8", "0-9", "1-65536", "a-b")),
        *((f"ports: {{media: {x}}}", "ports.media") for x in ("5", "1-2-3", "'-1-2'", "1-", "[1]")),
        ("ports: {rtmp: 65536}", "ports.rtmp"),
        ("addresses: {overlay: 10.98.0.1/24}", "addresses.overlay"),
        ("test_channels: 17", "test_channels"),
        ("leaf: other", "leaf"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line_with_its_place(text: str | bytes, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        config(text)
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@given(st.text(max_size=60) | st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_is_a_configuration_or_refused(text: str | bytes) -> None:
    try:
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        assert config(raw).site
    except UsageError:
        pass


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PORTS__RTPM", "1", "ports.rtpm"),
        ("PORTS__MEDIA", "9-8", "ports.media"),
        ("PORTS", "no json", "ports"),
        ("NODES", "[{]", "nodes"),
        ("TLS__ENABLED", "perhaps", "tls.enabled"),
        ("CONFIG", "/no/such/file.yaml", "no configuration file /no/such/file.yaml"),
        ("CONFIG", "/", "no configuration file /"),
    ],
)
def test_a_wrong_variable_is_said_too(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"ANABRANCH_{variable}", value)
    with pytest.raises(UsageError, match=words):
        load_config()


def test_variables_that_are_no_settings_do_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUN", "URL", "TOKEN"):
        monkeypatch.setenv(f"ANABRANCH_{name}", "x")
    assert load_config().site == "main"


@pytest.mark.parametrize(
    ("listen", "host", "port", "url"),
    [
        ("0.0.0.0:8080", "0.0.0.0", 8080, "http://127.0.0.1:8080"),
        ("[::]:8080", "::", 8080, "http://127.0.0.1:8080"),
        ("[::1]:80", "::1", 80, "http://[::1]:80"),
        ("localhost:1", "localhost", 1, "http://localhost:1"),
        ("192.0.2.1:65535", "192.0.2.1", 65535, "http://192.0.2.1:65535"),
    ],
)
def test_every_form_of_listen(listen: str, host: str, port: int, url: str) -> None:
    found = config(f"listen: '{listen}'")
    assert (found.host, found.port, found.local_url) == (host, port, url)
    assert config(f"listen: '{listen}'\ntls: {{enabled: true}}").local_url == url.replace(
        "http", "https"
    )


def test_settings_are_the_configuration_in_the_sites_words() -> None:
    made = site_settings(config("ports: {media: 1-20}\nvideo: {framerate: 30}"))
    assert made.ports == Ports(media=(1, 20))
    assert {rendition.framerate for rendition in made.ladder} == {made.format.framerate} == {30}
    assert made.database_url.endswith("/state/store.db")
    assert made.run_id != site_settings(config()).run_id


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("public_address: example.org", "not an IPv4 address"),
        ("public_address: '::1'", "not an IPv4 address"),
        ("video: {gop_s: 9}", "at most 2 s"),
        ("video: {ladder: [{name: a, width: 3, height: 16, bitrate_kbps: 100}]}", "width"),
        ("video: {ladder: [{name: audio, width: 16, height: 16, bitrate_kbps: 100}]}", "sound"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.delenv("ANABRANCH_PUBLIC_ADDRESS")
    with pytest.raises(AnabranchError, match=words):
        site_settings(config(text))
