"""Configuration: defaults that are true, and one line that names what is wrong."""

import os
import stat
from collections.abc import Callable
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anabranch.app import public
from anabranch.app.config import Config, load_config
from anabranch.app.settings import check_run_dir, site_settings
from anabranch.core.errors import AnabranchError, UsageError
from anabranch.site.settings import LeafSettings, Ports


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


_OUTLET = (
    "{{name: sort1, role: {}, outlet:"
    " {{device: eth2, networks: [10.1.0.0/16], next_hop: '{}', source: 10.1.0.1}}}}"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sit: main", "sit: there is no such setting (did you mean site?)"),
        ("ports: {rtms: 1}", "ports.rtms: there is no such setting (did you mean rtmp?)"),
        ("nodes: [{name: root, role: root, rate_mbits: 1}]", "0.rate_mbits: there is no such"),
        ("nodes: [{name: root, role: root, rate_mbits: 1}]", "(did you mean rate_mbit?)"),
        ("video: {ladder: [{named: a}]}", "video.ladder.0.named: there is no such"),
        ("site: main\nxyzzy: 1", "xyzzy: there is no such setting"),
        ("video: {ladder: []}", "video: a channel needs at least one rendition"),
        ("video: {gop_s: 9}", "video: a key frame every 9.0 s"),
        ("listen: '80'", "wrong: listen: listen is ADDRESS:PORT"),
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
        ("seats: {per_leaf: 2001}", "seats.per_leaf"),
        ("seats: {allow: [2001:db8::1/64]}", "seats.allow"),
        (f"nodes: [{_OUTLET.format('relay', '02:00:00:00:00:01')}]", "behind a leaf's switch"),
        (f"nodes: [{_OUTLET.format('leaf', 'router')}]", "outlet.next_hop"),
        ("leaf: other", "leaf.kind"),
        ("leaf: {kind: anabranch, threads: 0}", "leaf.threads"),
        ("leaf: {kind: anabranch, warm: some}", "leaf.warm"),
        ("leaf: {kind: anabranch, worm: all}", "leaf.worm: there is no such setting (did you mean"),
        ("leaf: {kind: janus, warm: all}", "leaf: warm: a Janus keeps nothing at hand"),
        ("leaf: [janus]", "leaf"),
        ("leaf: '{'", "leaf"),
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
        ("PORTS__RTMS", "1", r"PORTS__RTMS is no setting \(did you mean ANABRANCH_PORTS__RTMP\?"),
        ("LISTN", "1", r"ANABRANCH_LISTN is no setting \(did you mean ANABRANCH_LISTEN\?\)"),
        ("SITE__NAME", "1", "ANABRANCH_SITE__NAME is no setting"),
        ("ZQZQZQZQZQZQZQZQZQZQ", "1", "is no setting$"),
        ("ZQZQ", "", "ANABRANCH_ZQZQ is no setting"),
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
    for name in ("RUN", "URL", "TOKEN", "LEAF_SERVER", "SOAK_MINUTES", "SOAK_RECORD"):
        monkeypatch.setenv(f"ANABRANCH_{name}", "x")
    assert load_config().site == "main"


@pytest.mark.parametrize(
    ("text", "kind", "threads", "warm"),
    [
        ("", "anabranch", 1, frozenset()),
        ("leaf: janus", "janus", 1, frozenset()),
        ("leaf: anabranch", "anabranch", 1, frozenset()),
        ("leaf: {kind: anabranch, threads: 4, warm: all}", "anabranch", 4, None),
        ("leaf: {kind: anabranch, warm: [news, sport]}", "anabranch", 1, {"news", "sport"}),
        ("leaf: {warm: none}", "anabranch", 1, frozenset()),
    ],
)
def test_every_form_of_leaf(text: str, kind: str, threads: int, warm: set[str] | None) -> None:
    found = site_settings(config(text)).leaf
    assert (found.kind, found.threads, found.warm) == (kind, threads, warm)


def test_only_servers_of_our_own_have_lost_packets_repaired() -> None:
    assert site_settings(config("leaf: {kind: anabranch, repair: true}")).leaf.repair
    assert not site_settings(config("leaf: anabranch")).leaf.repair
    with pytest.raises(UsageError, match="repair: a Janus"):
        config("leaf: {kind: janus, repair: true}")


def test_the_leaf_may_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANABRANCH_LEAF", "janus")
    assert config("leaf: anabranch").leaf.kind == "janus"
    monkeypatch.setenv("ANABRANCH_LEAF", '{"kind": "anabranch", "threads": 2}')
    assert config("").leaf.threads == 2
    monkeypatch.delenv("ANABRANCH_LEAF")
    monkeypatch.setenv("ANABRANCH_LEAF__KIND", "anabranch")
    monkeypatch.setenv("ANABRANCH_LEAF__WARM", '["news"]')
    assert config("leaf: {threads: 3}").leaf.settings == LeafSettings(
        "anabranch", 3, frozenset({"news"})
    )
    monkeypatch.setenv("ANABRANCH_LEAF__WARM", "all")
    assert config("").leaf.settings.warm is None


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


def test_public_addresses_are_of_both_families_and_none_is_told_twice() -> None:
    found = config(public_address="2001:DB8:0::1, 192.0.2.1 2001:db8::1")
    assert found.public_addresses() == ("2001:db8::1", "192.0.2.1")
    made = site_settings(found)
    assert made.families == ("ip", "ip6")
    assert made.console == "http://[2001:db8::1]:8080"
    assert made.producers_host == "192.0.2.1"  # their servers are at IPv4 addresses alone
    assert site_settings(config(public_address="2001:db8::1")).producers_host == "127.0.0.1"
    assert site_settings(config("listen: 0.0.0.0:1", public_address="fd00::1")).families == ("ip6",)


def test_what_is_found_is_the_ipv4_address_outwards_then_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links = {"eth0": "2001:db8::2", "ab0123-1": "fd56:2b7e:91c4:123::4"}

    def lasting(but: Callable[[str], bool]) -> list[IPv6Address]:
        return [IPv6Address(address) for device, address in links.items() if not but(device)]

    monkeypatch.setattr(public, "outward_address", lambda: IPv4Address("192.0.2.1"))
    monkeypatch.setattr(public, "global_addresses_6", lasting)
    assert config(public_address="auto").public_addresses() == ("192.0.2.1", "2001:db8::2")
    monkeypatch.setattr(public, "outward_address", lambda: None)
    monkeypatch.setattr(public, "local_addresses", lambda but: [])
    assert config(public_address="auto").public_addresses() == ("2001:db8::2",)
    assert config(public_address="none").public_addresses() == ()


@pytest.mark.parametrize("state", ["disabled", "absent"])
def test_an_ipv6_address_of_a_machine_without_ipv6_is_refused(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(public, "ipv6", lambda: state)
    with pytest.raises(UsageError, match=f"this machine's IPv6 is {state}, so not 2001:db8::1"):
        site_settings(config(public_address="192.0.2.1, 2001:db8::1"))
    assert site_settings(config(public_address="192.0.2.1")).families == ("ip",)


def test_settings_are_the_configuration_in_the_sites_words() -> None:
    made = site_settings(config("ports: {media: 1-20}\nvideo: {framerate: 30}"))
    assert made.ports == Ports(media=(1, 20))
    assert {rendition.framerate for rendition in made.ladder} == {made.format.framerate} == {30}
    assert made.database_url.endswith("/state/store.db")
    assert made.run_id != site_settings(config()).run_id


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("public_address: example.org", "example.org is not an IPv4 or IPv6 address"),
        ("public_address: 192.0.2.1, 2001:db8:::1", "2001:db8:::1 is not an IPv4 or IPv6"),
        ("public_address: '2001:db8::1%eth0'", "2001:db8::1%eth0 is of one link"),
        ("public_address: '::1'", "nobody else reaches this machine by ::1"),
        ("public_address: 'fe80::1'", "nobody else .* by fe80::1"),
        ("public_address: 'ff02::1'", "nobody else .* by ff02::1"),
        ("public_address: '::'", "nobody else .* by ::"),
        ("public_address: '::ffff:192.0.2.1'", "nobody else .* by ::ffff:"),
        ("video: {gop_s: 9}", "at most 4 s"),
        (
            "tree: {thresholds: {loss: {warning: 10, danger: 2}}}",
            r"^tree\.thresholds\.loss: .* 0 < warning <= danger .* not 10, 2 and 0\.8$",
        ),
        ("tree: {marks: {high: 0.3, low: 0.8}}", "0 < low < high <= 1, not 0.8 and 0.3"),
        ("tree: {marks: {cool_down_s: -5}}", "mark cool_down_s needs to be 0 or more"),
        ("tree: {marks: {hihg: 0.9}}", r"tree\.marks\.hihg: there is no such setting$"),
        ("tree: {sensitivity: {rounds: 0}}", "sensitivity rounds needs to be 1 or more"),
        ("tree: {pause_s: .inf}", r"tree\.pause_s: Input should be a finite number"),
        (
            "placement: {prefixes: {10.1.0.1/16: [leaf1]}}",
            r"wrong: placement\.prefixes\.10\.1\.0\.1/16: .* has host bits set$",
        ),
        ("links: [{between: [root, leaf1], rate_mbit: 1.0e-9}]", r"links\.0\.rate_mbit: .* 0\.1"),
        ("links: [{between: [root, leaf1], rate_mbit: .nan}]", r"links\.0\.rate_mbit: "),
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


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite+aiosqlite:////var/a.db", "sqlite+aiosqlite:////var/a.db"),
        ("postgresql://u:p%40ss@db/site", "postgresql+psycopg://u:p%40ss@db/site"),
        ("postgresql+psycopg://u:p@db/site?a=b", "postgresql+psycopg://u:p@db/site?a=b"),
    ],
)
def test_a_database_has_a_driver_that_does_not_block(given: str, kept: str) -> None:
    assert site_settings(config(f"database: '{given}'")).database_url == kept


@pytest.mark.parametrize(
    "text",
    [
        "store.db",
        "",
        "mysql://u:geheim@db/site",
        "postgresql+asyncpg://u:geheim@db/site",
        "postgresql+psycopg2://u:geheim@db/site",
        "postgresql://u:geheim@db:port/site",
        "://geheim",
    ],
)
def test_a_database_of_another_kind_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        config(f"database: '{text}'")
    assert "sqlite+aiosqlite:///PATH or postgresql+psycopg://USER" in str(raised.value)
    assert "geheim" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_run_directory_too_long_for_its_sockets_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def settled(length: int, name: str = "leaf1", carriage: str = "switches") -> None:
        monkeypatch.setenv("ANABRANCH_RUN_DIR", "/" + "r" * (length - 1))
        nodes = f"nodes: [{{name: root, role: root}}, {{name: {name}, role: leaf, parent: root}}]"
        site_settings(config(f"{nodes}\ncarriage: {carriage}"))

    longest = 107 - len("/leaf1/ovs/overlay.controller")
    settled(longest)
    with pytest.raises(UsageError, match="1 bytes too long for the sockets in it: set run_dir"):
        settled(longest + 1)
    with pytest.raises(UsageError, match="35 bytes too long"):
        settled(longest, "l" * 40)
    settled(107 - len("/channels/1000/feed.sock"), "l" * 40, "direct")
    with pytest.raises(UsageError, match="set run_dir"):
        settled(107 - len("/channels/1000/feed.sock") + 1, carriage="direct")


def test_a_run_directory_in_tmp_is_the_users_alone(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    own = here / "anabranch-1"
    for module in ("config", "settings"):
        monkeypatch.setattr(f"anabranch.app.{module}.own_tmp", lambda: own)
    monkeypatch.setattr("anabranch.app.config.ROOT_RUN", own / "anabranch")
    monkeypatch.delenv("ANABRANCH_RUN_DIR")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    check_run_dir(load_config())
    assert not own.exists()
    check_run_dir(load_config(), make=True)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    check_run_dir(load_config(), make=True)
    own.chmod(0o770)
    with pytest.raises(UsageError, match=f"{own} must be a directory that nobody else may write"):
        check_run_dir(load_config(), make=True)
    own.rmdir()
    (here / "elsewhere").mkdir(mode=0o700)
    own.symlink_to(here / "elsewhere")
    with pytest.raises(UsageError, match="must be a directory"):
        check_run_dir(load_config(), make=True)


@pytest.mark.parametrize(("owner", "remedy"), [(0, "use sudo"), (12345, "set run_dir")])
def test_a_run_directory_of_another_user_is_refused(
    monkeypatch: pytest.MonkeyPatch, here: Path, owner: int, remedy: str
) -> None:
    (here / "run").mkdir(mode=0o700)
    found = load_config()
    check_run_dir(found)
    lstat = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        fields = list(lstat(path))
        fields[stat.ST_UID] = owner
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "lstat", of_another)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match=f"run belongs to another user: {remedy}"):
        check_run_dir(found)


def test_a_bus_is_beside_a_listener() -> None:
    bus = "bus: 'tls://192.0.2.1:4222'"
    with pytest.raises(UsageError, match=r"set remote\.listen"):
        site_settings(config(f"remote: {{{bus}}}"))
    made = site_settings(config(f"carriage: switches\nremote: {{listen: '0.0.0.0:1', {bus}}}"))
    assert made.remote is not None
    assert made.remote.bus == "tls://192.0.2.1:4222"
