"""Files of users: YAML, and the seed's XML."""

import contextlib
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.controller.users import UsersError, load, parse_xml, parse_yaml
from anabranch.services.keys import PrivateKey

KEY = PrivateKey.generate().public
YAML = f"""
users:
  - name: janedoe
    public_key: {KEY}
    address: 10.0.3.2
    listen_ports: [80, 5060-5070]
    filter_prefixes: [192.0.2.0/24, "2001:db8::/32"]
    sandbox: /var/lib/x
""".encode()
XML = f"""<?xml version="1.0"?>
<netserv>
  <user name="janedoe">
    <public-key>
{KEY.pem()}
    </public-key>
    <address>10.0.3.2</address>
    <listen-ports>80, 5060-5070</listen-ports>
    <filter-prefixes>192.0.2.0/24, 2001:db8::/32</filter-prefixes>
    <sandbox>/var/lib/x</sandbox>
  </user>
</netserv>""".encode()


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "users.xml").write_bytes(XML)
    (tmp_path / "users.yaml").write_bytes(YAML)
    users = load(tmp_path / "users.xml")
    assert users == load(tmp_path / "users.yaml")
    jane = users["janedoe"]
    assert jane.public_key == KEY
    assert jane.address == ip_address("10.0.3.2")
    assert [jane.may_listen(port) for port in (80, 81, 5060, 5070, 5071)] == [
        True, False, True, True, False,
    ]  # fmt: skip
    assert jane.may_filter(ip_network("192.0.2.7"))
    assert jane.may_filter(ip_network("2001:db8:1::/48"))
    assert not jane.may_filter(ip_network("192.0.0.0/16"))
    assert jane.sandbox == Path("/var/lib/x")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b"name: janedoe", b"name: jane/doe", "name"),
        (str(KEY).encode(), b"ssh-rsa AAAA", "public_key"),
        (b"5060-5070", b"5070-5060", "listen_ports"),
        (b"5060-5070", b"http", "listen_ports"),
        (b"192.0.2.0/24", b"192.0.2.1/24", "filter_prefixes"),
        (b"address: 10.0.3.2", b"adress: 10.0.3.2", "adress"),
        (b"users:", b"users: [", "YAML"),
    ],
    ids=range(7),  # a key that is drawn is no name: each worker would have another
)
def test_what_is_wrong_is_said(tmp_path: Path, old: bytes, new: bytes, complaint: str) -> None:
    path = tmp_path / "users.yaml"
    path.write_bytes(YAML.replace(old, new))
    with pytest.raises(UsersError, match=complaint) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_users_twice_absent_files_and_document_types(tmp_path: Path) -> None:
    with pytest.raises(UsersError, match="twice"):
        parse_yaml(YAML + YAML.split(b"users:\n")[1])
    with pytest.raises(UsersError, match="No such file"):
        load(tmp_path / "absent.yaml")
    bomb = b'<!DOCTYPE n [<!ENTITY a "aaaa">]><netserv>&a;</netserv>'
    with pytest.raises(UsersError, match="document type"):
        parse_xml(bomb)
    with pytest.raises(UsersError, match="netserv"):
        parse_xml(b"<users/>")


@given(st.binary() | st.sampled_from([XML, YAML]).flatmap(
    lambda whole: st.integers(0, len(whole)).map(lambda cut: whole[:cut] + whole[cut + 1 :])
))  # fmt: skip
def test_any_bytes_are_users_or_the_error(data: bytes) -> None:
    for parse in (parse_yaml, parse_xml):
        with contextlib.suppress(UsersError):
            parse(data)
