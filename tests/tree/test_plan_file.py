"""Plans as files: what is written is read, nothing else is, and what has changed is named."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.tree.descriptions import described, descriptions

from anabranch.core.errors import UsageError
from anabranch.tree import plan_file
from anabranch.tree.description import Candidate, CandidateLink, Description
from anabranch.tree.model import Role, TreeError
from anabranch.tree.plan_file import (
    Kind,
    check,
    read_description,
    read_plan,
    to_description,
    to_json,
    to_xml,
)
from anabranch.tree.planning import Plan, plan

DRAWN = described("root-a root-b a-leaf1 b-leaf2 a-b leaf1~leaf2 a-c", fan_out={Role.ROOT: 4})
PLAN = plan(DRAWN)
FORMS = [to_json(PLAN).encode(), to_xml(PLAN).encode()]
DESCRIPTION_XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<description>
  <fan_out relay="8"/>
  <node name="root" role="root"/>
  <node name="leaf1" role="leaf" available="true"/>
  <link one="root" other="leaf1" rate_mbit="1e3" cost="2" redundant="false"/>
</description>
"""


@given(descriptions(costs=(0, 0.1), absent=True), st.floats(1e-3, 1e9))
def test_what_is_written_is_read(drawn: Description, rate: float) -> None:
    link = CandidateLink("root", "leaf0", rate_mbit=rate)
    links = (link, *(each for each in drawn.links if each.ends != link.ends))
    nodes = [n for n in drawn.nodes if n.name != "leaf0"]
    drawn = Description((*nodes, Candidate("leaf0", Role.LEAF)), links)
    try:
        made = plan(drawn)
    except TreeError:
        return
    for text in (to_json(made), to_xml(made)):
        assert read_plan(text.encode()) == made


def test_descriptions() -> None:
    node, leaf = Candidate("root", Role.ROOT), Candidate("leaf1", Role.LEAF)
    link = CandidateLink("root", "leaf1", rate_mbit=1000, cost=2)
    drawn = Description((node, leaf), (link,), {Role.RELAY: 8})
    assert read_description(DESCRIPTION_XML) == drawn
    content = {
        "nodes": [{"name": "root", "role": "root"}, {"name": "leaf1", "role": "leaf"}],
        "links": [{"between": ["root", "leaf1"], "rate_mbit": 1000, "cost": 2}],
        "fan_out": {"relay": 8},
    }
    assert read_description(json.dumps(content).encode()) == to_description(content) == drawn


def turned(form: bytes, old: str, new: str) -> bytes:
    assert old.encode() in form
    return form.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "the file: "),
        (b'{"version": 1}', "nodes: Field required"),
        (b"\xff", "the file: "),
        (turned(FORMS[0], '"version": 1', '"version": 2'), "only version 1"),
        (turned(FORMS[1], 'version="1"', 'version="x"'), "version: "),
        (turned(FORMS[1], ' version="1"', ""), "version: Field required"),
        (turned(FORMS[0], '"name": "a"', '"name": "A"'), "'A' is not allowed"),
        (turned(FORMS[0], '"name": "a"', '"name": "b"'), "two nodes are named b"),
        (turned(FORMS[0], '"role": "relay"', '"role": "leaf"'), "hangs from the leaf a"),
        (turned(FORMS[1], 'parent="a"', 'parent="b"'), "no link from node leaf1 to its parent b"),
        (turned(FORMS[1], 'parent="a"', ""), "leaf1 must be either"),
        (turned(FORMS[1], 'rate_mbit="100.0"', 'rate_mbit="nan"'), "no rate"),
        (turned(FORMS[1], "<link ", "<node "), "nodes.6.name"),
        (turned(FORMS[1], "<link ", "<edge "), "'edge' is not allowed"),
        (turned(FORMS[1], '<fan_out root="4" />', "<fan_out/><fan_out/>"), "'fan_out' is not"),
        (turned(FORMS[1], '<fan_out root="4" />', "<fan_out><a/></fan_out>"), "others within"),
        (FORMS[1].replace(b"plan", b"plane"), "'plane' is no 'plan'"),
        (b'<!DOCTYPE plan [<!ENTITY a "b">]>' + FORMS[1], "document type"),
        (b'<?xml-stylesheet href="x"?>' + FORMS[1], "processing instruction|not well-formed"),
        (FORMS[1][:-9], "not well-formed"),
        (FORMS[1].decode().encode("utf-16"), "the file: |UTF-8"),
        (b'{"version": 1, "nodes": ' + b"[" * 100_000, "Invalid JSON|recursion"),
        (b"<a>" * 100_000, "too many"),
    ],
)
def test_what_is_no_plan(data: bytes, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        read_plan(data)
    assert len(str(caught.value)) < 500


def test_limits_of_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="more than 16777216"):
        read_plan(b" " * (plan_file.MAX_BYTES + 1))
    many = [{"name": f"n{n}", "role": "relay"} for n in range(plan_file.MAX_NODES + 1)]
    with pytest.raises(UsageError, match="at most 10000 items"):
        to_description({"nodes": many})


@given(st.binary() | st.text().map(str.encode))
@example(b"<plan/>")
@example(b"<description/>")
@example(b"\0<plan/>")
def test_any_bytes_are_a_file_or_its_error(data: bytes) -> None:
    for read in (read_plan, read_description):
        with pytest.raises(UsageError):
            read(data)


@given(st.sampled_from(FORMS), st.data())
def test_damaged_files_are_a_plan_or_its_error(form: bytes, data: st.DataObject) -> None:
    damaged = bytearray(form)
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(damaged)))
        last = min(len(damaged), first + data.draw(st.integers(0, 8)))
        damaged[first:last] = data.draw(st.binary(max_size=8) | st.sampled_from([form[:20], b'"']))
    try:
        made = read_plan(bytes(damaged))
    except UsageError:
        return
    assert isinstance(made, Plan)
    assert read_plan(to_json(made).encode()) == made


def changed(
    *, drop: str = "", node: Candidate | None = None, link: CandidateLink | None = None
) -> list[tuple[Kind, str, bool]]:
    nodes = [n for n in DRAWN.nodes if n.name != drop and (not node or n.name != node.name)]
    links = [k for k in DRAWN.links if str(k) != drop and (not link or k.ends != link.ends)]
    found = check(PLAN, nodes + ([node] if node else []), links + ([link] if link else []))
    for problem in found:
        assert problem.subject in problem.text
    return [(problem.kind, problem.subject, problem.breaks) for problem in found]


def test_a_plan_that_fits() -> None:
    assert check(PLAN, DRAWN.nodes, DRAWN.links) == []
    turned_links = [CandidateLink(k.other, k.one, redundant=k.redundant) for k in DRAWN.links]
    more = Candidate("new", Role.LEAF)
    assert check(PLAN, [more, *reversed(DRAWN.nodes)], turned_links) == []
    assert changed(drop="c") == changed(drop="a - c") == []  # pruned anyway


def test_what_does_not_fit_is_named() -> None:
    assert changed(drop="a") == [(Kind.NODE_MISSING, "a", True)]
    assert changed(drop="a - root") == [(Kind.LINK_MISSING, "a - root", True)]
    assert changed(drop="a - b") == [(Kind.LINK_MISSING, "a - b", False)]
    away = Candidate("leaf1", Role.LEAF, available=False)
    assert changed(node=away) == [(Kind.NODE_UNAVAILABLE, "leaf1", True)]
    assert changed(node=Candidate("leaf1", Role.RELAY)) == [(Kind.ROLE_CHANGED, "leaf1", True)]
    assert changed(link=CandidateLink("root", "a", rate_mbit=9, redundant=True)) == [
        (Kind.LINK_REDUNDANT, "a - root", True),
        (Kind.RATE_CHANGED, "a - root", False),
    ]
    assert changed(link=CandidateLink("leaf2", "leaf1", 9)) == [
        (Kind.RATE_CHANGED, "leaf1 - leaf2", False)
    ]
