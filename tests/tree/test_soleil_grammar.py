"""What is written is what the grammar in the documentation says."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from tests.tree.soleil_messages import MESSAGES

from anabranch.tree.soleil.codec import encode
from anabranch.tree.soleil.messages import Message, Ping

etree = pytest.importorskip("lxml.etree")

PROTOCOLS = Path(__file__).parents[2] / "docs/protocols"
GRAMMAR = etree.RelaxNG(file=str(PROTOCOLS / "soleil.rng"))
EXAMPLES = re.findall(
    r"^```xml\n(.*?)^```$", (PROTOCOLS / "soleil.md").read_text(), re.DOTALL | re.MULTILINE
)


@given(MESSAGES)
def test_every_message_is_valid(message: Message) -> None:
    GRAMMAR.assertValid(etree.fromstring(encode(message)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_valid(example: str) -> None:
    GRAMMAR.assertValid(etree.fromstring(example))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("ping", "pong2"), ('time="', 'time="x'), ("nonce", "once"), (">n<", ">a b<")],
)
def test_the_grammar_tells_right_from_wrong(right: str, wrong: str) -> None:
    document = encode(Message(Ping("n"), 1)).decode()
    assert GRAMMAR.validate(etree.fromstring(document))
    assert not GRAMMAR.validate(etree.fromstring(document.replace(right, wrong)))
