"""The file of a stand-alone controller: what is in it, and what may not be."""

from pathlib import Path

import pytest
import yaml

from anabranch.app.controller_file import (
    ControllerFile,
    address,
    listening_at,
    port_ref,
    read_controller_file,
)
from anabranch.core.errors import UsageError
from anabranch.fabric.host_services import Unicast
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.options import Options
from anabranch.fabric.pathlogic.logic import Path as VmPath
from anabranch.fabric.pathlogic.logic import Role

SEED = '"vpm-extend-match": {"dataLayerType": "0x0800", "networkDestination": "10.0.0.255",}'
WHOLE = """
listen: 127.0.0.1:6653
api: unix:api.sock
token: token
tls: {ca: ca.pem, certificate: a.pem, key: a.key}
switches:
  - {name: s1, dpid: 1}
  - {name: s2, dpid: 0x2, connect: br1.mgmt}
links:
  - {between: ["s1:2", "s2:2"], capacity_mbit: 1000}
  - {between: ["s1:3", "s2:3"], redundant: true}
edge: ["s1:1", "s2:1"]
discover: false
unicast: icmp
dhcp_server: "s1:1"
lease: lease
settle_s: 1
intents: {flows: []}
path_logic: soleil
paths:
  - name: stream
    ingress: s1:1
    exit: s2:1
    external: 192.168.1.181
    extend_match: match.json
    roles: {s1: root, s2: leaf}
  - name: more
    ingress: s1:1
    exit: s2:1
    external: 192.168.1.182
    external_mac: "52:54:00:12:34:5A"
    match: {eth_type: 0x0800, ipv4_src: 10.0.0.0/8}
"""


def read(text: str) -> ControllerFile:
    Path("net.yaml").write_text(text)
    return read_controller_file(Path("net.yaml"))


def test_no_file_and_an_empty_one_take_any_switch_in(here: Path) -> None:
    for file in (read_controller_file(None), read("")):
        options = file.options()
        assert (options.adopt, options.names, options.discover) == (True, {}, True)
        assert options.path_logic == Options().path_logic
        assert options.hosts is not None
        assert options.hosts.unicast is Unicast.ANY
        assert (file.intents, file.paths, file.lease) == (None, (), None)


def test_a_whole_file(here: Path) -> None:
    (here / "match.json").write_text(SEED)
    file = read(WHOLE)
    options = file.options()
    wide = Link(PortRef("s1", 2), PortRef("s2", 2))
    spare = Link(PortRef("s1", 3), PortRef("s2", 3))
    assert options.links == {
        wide: LinkInfo(capacity_mbit=1000),
        wide.reverse: LinkInfo(capacity_mbit=1000),
        spare: LinkInfo(redundant=True),
        spare.reverse: LinkInfo(redundant=True),
    }
    assert (options.names, options.adopt) == ({1: "s1", 2: "s2"}, False)
    assert options.edge == {PortRef("s1", 1), PortRef("s2", 1)}
    assert (options.discover, options.settle_s, options.path_logic) == (False, 1.0, "soleil")
    assert options.hosts is not None
    assert (options.hosts.unicast, options.hosts.dhcp_server) == (Unicast.ICMP, PortRef("s1", 1))
    assert options.hosts.edge == options.edge
    assert file.switches[1].connect == Path("br1.mgmt")
    ends = PortRef("s1", 1), PortRef("s2", 1)
    assert [path.path() for path in file.paths] == [
        VmPath(
            "stream",
            *ends,
            "192.168.1.181",
            Match(eth_type=0x0800, ipv4_dst="10.0.0.255"),
            roles={"s1": Role.ROOT, "s2": Role.LEAF},
        ),
        VmPath(
            "more",
            *ends,
            "192.168.1.182",
            Match(eth_type=0x0800, ipv4_src="10.0.0.0/8"),
            "52:54:00:12:34:5a",
            roles={},
        ),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour: "),
        ({"switches": [{"name": "s1", "dpid": -1}]}, "switches.0.dpid: "),
        ({"switches": [{"name": "a:b", "dpid": 1}]}, "switches.0.name: "),
        ({"switches": [{"name": "a", "dpid": 1}] * 2}, "two switches have the same name"),
        (
            {"switches": [{"name": "a", "dpid": 1}, {"name": "b", "dpid": 1}]},
            "two switches have the same dpid",
        ),
        ({"links": [{"between": ["s1:2"]}]}, "links.0.between"),
        ({"links": [{"between": ["s1:2", "s2"]}]}, "a port is SWITCH:NUMBER"),
        ({"links": [{"between": ["s1:2", "s2:2"], "capacity_mbit": 0}]}, "capacity_mbit"),
        ({"edge": ["s1:0"]}, "edge.0: a port is SWITCH:NUMBER, such as s1:2"),
        ({"edge": ["s1:4294967295"]}, "edge.0: a port is"),
        ({"dhcp_server": "s1"}, "dhcp_server: a port is"),
        ({"unicast": "some"}, "unicast: "),
        ({"settle_s": 61}, "settle_s: "),
        ({"tls": {"ca": "a"}}, "tls.certificate: "),
        ({"paths": [{"name": "Stream"}]}, "paths.0.name: the name 'Stream' is not allowed"),
        ({"path_logic": 5}, "path_logic: "),
        ({"listen": "nonsense"}, "listen: 'nonsense' is not ADDRESS:PORT, such as 127.0.0.1:6653"),
        ({"listen": "127.0.0.1:0"}, "listen: '127.0.0.1:0' is not ADDRESS:PORT"),
        ({"listen": "127.0.0.1:65536"}, "listen: '127.0.0.1:65536' is not"),
        ({"listen": ":6653"}, "listen: ':6653' is not"),
        ({"listen": "::1:6653"}, "listen: '::1:6653' is not"),
        ({"listen": "[nowhere]:6653"}, "no IPv6 address"),
        ({"listen": "unix:a.sock"}, "listen: 'unix:a.sock' is not ADDRESS:PORT"),
        ({"listen": 6653}, "listen: "),
        ({"api": "nonsense"}, "api: 'nonsense' is not ADDRESS:PORT"),
        ({"api": "127.0.0.1"}, "nor unix:PATH"),
        ({"api": "unix:"}, "api: 'unix:' is no path of a socket"),
        ({"api": "unix:" + 108 * "a"}, "is no path of a socket: 1 to 107 bytes"),
        ({"api": None}, "api: "),
    ],
)
def test_what_is_wrong_is_named_by_its_place(
    here: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=r"net\.yaml is wrong: ") as failed:
        read(yaml.safe_dump(change))
    assert words in str(failed.value)
    assert "\n" not in str(failed.value)


GOOD = {
    "name": "stream",
    "ingress": "s1:1",
    "exit": "s2:1",
    "external": "192.168.1.181",
    "match": {"eth_type": 2048},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"match": None}, "either match or extend_match must be given"),
        ({"extend_match": "match.json"}, "either match or extend_match must be given"),
        ({"ingress": "s1"}, "paths.0.ingress: a port is"),
        ({"roles": {"s1": "king"}}, "paths.0.roles.s1"),
        ({"external": 5}, "paths.0.external"),
    ],
)
def test_a_path_that_is_none_is_named_by_its_place(
    here: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError) as failed:
        read(yaml.safe_dump({"paths": [{**GOOD, **change}]}))
    assert words in str(failed.value)


def test_where_it_may_listen(here: Path) -> None:
    assert read("listen: null").listen is None
    for text in ("0.0.0.0:1", "[::1]:65535", "localhost:6653"):
        assert read(yaml.safe_dump({"listen": text, "api": text})).listen == text
    assert address("[::1]:65535") == ("::1", 65535)
    assert address("localhost:6653") == ("localhost", 6653)


def test_an_option_is_above_the_file_and_no_better(here: Path) -> None:
    (here / "match.json").write_text(SEED)
    file = read(WHOLE)
    changed = listening_at(file, "[::]:6653")
    assert changed.listen == "[::]:6653"
    assert listening_at(changed, "127.0.0.1:6653") == file
    with pytest.raises(UsageError, match="the options are wrong: listen: '1' is not ADDRESS:PORT"):
        listening_at(file, "1")


def test_two_paths_of_one_name(here: Path) -> None:
    with pytest.raises(UsageError, match="two paths have the same name"):
        read(yaml.safe_dump({"paths": [dict(GOOD), dict(GOOD)]}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"external": "nowhere"}, "path stream: 'nowhere'"),
        ({"external_mac": "nobody"}, "path stream: 'nobody' is not a MAC address"),
        ({"match": {"colour": 1}}, "no match field 'colour'"),
        ({"match": None, "extend_match": "nowhere.json"}, "nowhere.json cannot be read: No such"),
        ({"match": None, "extend_match": "a\0b"}, "cannot be read: embedded null"),
        ({"match": None, "extend_match": "bad.json"}, "bad.json is wrong: vpm-extend-match"),
        ({"match": None, "extend_match": "odd.json"}, "odd.json is wrong: vpm-extend-match: 'col"),
    ],
)
def test_a_path_that_cannot_be_is_a_word_of_ours(
    here: Path, change: dict[str, object], words: str
) -> None:
    (here / "bad.json").write_bytes(b"\xff\xff")
    (here / "odd.json").write_text('{"colour": 1}')
    file = read(yaml.safe_dump({"paths": [{**GOOD, **change}]}))
    with pytest.raises(UsageError) as failed:
        file.paths[0].path()
    assert words in str(failed.value)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\xff", b"a: [", b"\0", b"- 1", b"5", b"!!python/x y"]
)
def test_what_is_no_file_of_ours(here: Path, content: bytes) -> None:
    (here / "net.yaml").write_bytes(content)
    with pytest.raises(UsageError) as failed:
        read_controller_file(here / "net.yaml")
    assert "net.yaml" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_port_in_words() -> None:
    assert port_ref("a-b:1") == PortRef("a-b", 1)
    for text in ("", "s1", "s1:", ":1", "s1:-1", "s 1:1", "s1:1:1", "s1:x", "s1:99999999999"):
        with pytest.raises(ValueError, match="a port is SWITCH:NUMBER"):
            port_ref(text)
