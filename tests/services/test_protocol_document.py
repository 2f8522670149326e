"""docs/protocols/services.md says what the code does."""

import re
from pathlib import Path

from anabranch.services.signalling import message as text
from anabranch.services.signalling import response as responses
from anabranch.services.signalling.gist.objects import ObjectType
from anabranch.services.signalling.gist.wire import MAGIC, NSLP_ID, MessageType
from anabranch.services.signalling.message import Method
from anabranch.services.signalling.request import ALLOWED, MANDATORY, Probed

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocols" / "services.md").read_text()
METHODS = (Method.SETUP, Method.REMOVE, Method.PROBE, Method.TRIGGER)


def test_the_table_of_headers_is_the_code_s() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|(.*?)\|(.*?)\|(.*?)\|(.*?)\|", DOCUMENT, re.MULTILINE)
    table = {name: [mark.strip() for mark in marks] for name, *marks in rows}
    assert sorted(table) == sorted(ALLOWED)
    for name, marks in table.items():
        for method, mark in zip(METHODS, marks, strict=True):
            wanted = "*" if name in MANDATORY[method] else "+" if method in ALLOWED[name] else ""
            assert mark == wanted, (name, method)


def test_its_messages_are_read() -> None:
    blocks = re.findall(r"^```\n((?:SETUP|RESPONSE) .*?)<empty line>\n```", DOCUMENT, re.S | re.M)
    setup, response = (text.parse(block.encode() + b"\n") for block in blocks)
    assert {name for name, _ in setup.headers} >= set(MANDATORY[Method.SETUP])
    assert [hop.status for hop in responses.read(response).hops] == [200, 424]


def test_its_numbers_are_the_code_s() -> None:
    assert MAGIC.hex(" ") in DOCUMENT
    assert f"0x{NSLP_ID:04X}" in DOCUMENT
    types = ", ".join(f"{kind.value} {kind.name}" for kind in MessageType)
    listed = re.search(r"^Types: (.*?)\.", DOCUMENT, re.MULTILINE)[1]
    assert listed.upper().replace("MA-", "") == types
    numbers = re.findall(r"^\| [\w -]+ \| (\d+) \| ", DOCUMENT, re.MULTILINE)
    assert sorted(map(int, numbers)) == sorted(set(ObjectType) - {ObjectType.NAT_TRAVERSAL})
    assert all(f"`{kind}`" in DOCUMENT for kind in Probed)
