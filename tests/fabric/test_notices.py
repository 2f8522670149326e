"""Events as callbacks are told them: the seed's form to the byte, and our JSON."""

import json
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.events import Event, EventData
from anabranch.fabric.notices import Encoding, body_of, json_record, kind_wanted, seed_record

DPIDS = {"relay": 0x82F26AF6154A, "leaf": 7}
VM = Event(
    "vm.added",
    "relay",
    {"switch": "00:00:82:f2:6a:f6:15:4a", "vnet": "vnet0/6", "name": "relay", "port_no": 6},
    1.5,
)
LINK: EventData = {"src": "relay", "src_port": 2, "dst": "leaf", "dst_port": 1}


def test_the_seeds_figure_to_the_byte() -> None:
    """Figure 7.7; its request has Content-Length 81."""
    expected = b'data={"type":"VM","switch":"00:00:82:f2:6a:f6:15:4a","vnet":"vnet0/6","op":"ADD"}'
    assert len(expected) == 81
    assert body_of(VM, Encoding.FORM, DPIDS) == expected


@pytest.mark.parametrize(
    ("kind", "element", "op"),
    [
        ("switch.connected", "switch", "ADD"),
        ("switch.lost", "switch", "DELETE"),
        ("link.up", "link", "ADD"),
        ("link.down", "link", "DELETE"),
        ("vm.added", "VM", "ADD"),
        ("vm.removed", "VM", "DELETE"),
    ],
)
def test_every_kind_of_the_seed(kind: str, element: str, op: str) -> None:
    record = seed_record(Event(kind, "relay", {"switch": "relay", **LINK}), DPIDS)
    assert record is not None
    assert (record["type"], record["op"]) == (element, op)
    assert list(record)[-1] == "op"


@pytest.mark.parametrize(
    "kind",
    ["host.added", "port.down", "link.added", "link.removed", "vm.moved", "callback.failing"],
)
def test_what_the_seed_does_not_know_is_told_in_json_only(kind: str) -> None:
    event = Event(kind, "relay", {"port_no": 3}, 2.0)
    assert body_of(event, Encoding.FORM, DPIDS) is None
    body = body_of(event, Encoding.JSON, DPIDS)
    assert body is not None
    assert json.loads(body) == {
        "kind": kind,
        "subject": "relay",
        "time": 2.0,
        "data": {"port_no": 3},
    }


def test_a_switch_is_told_with_its_datapath_id_and_address() -> None:
    event = Event("switch.connected", "relay", {"dpid": "00", "address": "10.0.0.2"})
    assert seed_record(event, DPIDS) == {
        "type": "switch",
        "switch": "00:00:82:f2:6a:f6:15:4a",
        "ip": "10.0.0.2",
        "op": "ADD",
    }


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("00000000000000ff", "00:00:00:00:00:00:00:ff"),
        (None, "gone"),
        ("no number", "gone"),
        ("f" * 17, "gone"),
    ],
)
def test_a_switch_that_is_gone_is_named_as_well_as_can_be(told: str | None, expected: str) -> None:
    record = seed_record(Event("switch.lost", "gone", {"dpid": told}), DPIDS)
    assert record is not None
    assert record["switch"] == expected


def test_a_link_is_told_with_both_its_ends() -> None:
    assert seed_record(Event("link.down", "relay:2-leaf:1", LINK), DPIDS) == {
        "type": "link",
        "src-switch": "00:00:82:f2:6a:f6:15:4a",
        "src-port": "2",
        "dst-switch": "00:00:00:00:00:00:00:07",
        "dst-port": "1",
        "op": "DELETE",
    }


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], True),
        (["vm.added"], True),
        (["link.up", "vm.*"], True),
        (["vm.removed"], False),
        (["v.*"], False),
        (["*"], False),
    ],
)
def test_which_kinds_are_wanted(wanted: list[str], expected: bool) -> None:
    assert kind_wanted("vm.added", wanted) is expected


def test_our_json_has_the_seeds_members_too() -> None:
    record = json_record(VM, DPIDS)
    assert record["type"] == "VM"
    assert record["vnet"] == "vnet0/6"
    assert record["kind"] == "vm.added"
    assert record["subject"] == "relay"


@given(st.text(), st.text())
def test_whatever_a_device_is_called_a_form_parser_reads_it_back(switch: str, vnet: str) -> None:
    body = body_of(Event("vm.added", "x", {"switch": switch, "vnet": vnet}), Encoding.FORM, {})
    assert body is not None
    parsed = parse_qs(body.decode("ascii"), strict_parsing=True)
    assert list(parsed) == ["data"]
    assert json.loads(parsed["data"][0]) == {
        "type": "VM",
        "switch": switch,
        "vnet": vnet,
        "op": "ADD",
    }
