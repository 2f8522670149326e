"""Rules by the library, in real namespaces."""

import os
from collections.abc import Iterator

import pytest

from anabranch.host.network import (
    NetworkError,
    Port,
    fill_checksums,
    make_link,
    make_namespace,
    remove_namespace,
    run_tool,
)
from anabranch.host.nft import apply_rules

pytestmark = pytest.mark.lab


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"ab-nft-{os.getpid()}"
    make_namespace(name)
    try:
        yield name
    finally:
        remove_namespace(name)


def test_rules_hold_in_their_namespace_and_nowhere_else(namespace: str) -> None:
    apply_rules(
        "table ip ab_test { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; }", namespace
    )
    assert "192.0.2.1" in "".join(run_tool("nft", "list", "ruleset", namespace=namespace))
    assert "ab_test" not in "".join(run_tool("nft", "list", "tables"))


def test_all_or_nothing_and_what_nft_says(namespace: str) -> None:
    with pytest.raises(NetworkError, match=r"nft: .*syntax error"):
        apply_rules("table ip one { }\ntable ip two {", namespace)
    with pytest.raises(NetworkError, match=r"nft: .*No such file"):
        apply_rules("table ip one { }\ndelete set ip one nothing", namespace)
    assert not run_tool("nft", "list", "tables", namespace=namespace)


def test_devices_are_those_of_the_namespace(namespace: str) -> None:
    make_link(Port("one", namespace), Port("two", namespace))
    rules = 'table netdev t {{ chain c {{ counter fwd to "{}"; }}; }}'
    apply_rules(rules.format("two"), namespace)
    with pytest.raises(NetworkError):
        apply_rules(rules.format("three"), namespace)


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(NetworkError, match="ab-nowhere"):
        apply_rules("", "ab-nowhere")


def test_checksums_are_made_before_a_frame_leaves(namespace: str) -> None:
    make_link(Port("one", namespace), Port("two", namespace))
    fill_checksums("one", namespace)
    for device, state in (("one", "off"), ("two", "on")):
        said = run_tool("ethtool", "-k", device, namespace=namespace)
        assert f"tx-checksumming: {state}" in said
    with pytest.raises(NetworkError, match="three"):
        fill_checksums("three", namespace)
