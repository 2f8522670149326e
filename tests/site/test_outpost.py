"""What a node on another machine is made of, before anything is made."""

from dataclasses import replace
from ipaddress import IPv6Interface
from pathlib import Path

import pytest
from tests.site.test_guests import TERMS

from anabranch.site.outpost import OutpostSettings, _plan
from anabranch.site.settings import ACCESS_6
from anabranch.tree.certificates import Credentials
from anabranch.tree.model import Role

NOWHERE = Path("/nowhere")
TAG = 0x89ABCDEF


def settings(role: Role = Role.LEAF, *public: str) -> OutpostSettings:
    return OutpostSettings(
        name="paris",
        role=role,
        root="192.0.2.1",
        run_dir=NOWHERE,
        run_id="run",
        credentials=Credentials(NOWHERE),
        private="",
        api=NOWHERE,
        public_addresses=public,
    )


def test_a_leaf_that_viewers_reach_by_ipv6_has_a_link_for_it() -> None:
    plan = _plan(settings(Role.LEAF, "192.0.2.2", "2001:db8::2"), TERMS, TAG)
    assert plan.access is not None
    assert plan.gateway is not None
    inner, outer = plan.access.address_6, plan.gateway.address_6
    assert inner is not None
    assert outer == IPv6Interface((inner.ip - 1, 127))
    assert inner.network == outer.network
    assert inner.network.subnet_of(ACCESS_6)
    assert plan.inner_addresses == (str(inner.ip),)
    assert len(plan.gateway.device) <= 15
    other = _plan(settings(Role.LEAF, "2001:db8::2"), TERMS, TAG ^ 1 << 31)
    assert other.inner_addresses != plan.inner_addresses


@pytest.mark.parametrize(
    ("public", "kind"), [((), "anabranch"), (("192.0.2.2",), "anabranch"), (("fd00::1",), "janus")]
)
def test_else_it_has_ipv4_alone(public: tuple[str, ...], kind: str) -> None:
    plan = _plan(settings(Role.LEAF, *public), replace(TERMS, leaf=kind), TAG)
    assert plan.access is not None
    assert plan.access.address is not None
    assert plan.inner_addresses == ()


def test_a_relay_has_no_viewers() -> None:
    plan = _plan(settings(Role.RELAY, "2001:db8::2"), TERMS, TAG)
    assert (plan.access, plan.gateway, plan.inner_addresses) == (None, None, ())
