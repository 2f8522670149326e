"""In what order switches are served, and what an audit reads."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.fabric.test_controller_softswitch import held, rule, tables, until

from anabranch.fabric.controller import Controller
from anabranch.fabric.openflow.messages import Command, FlowMod, MultipartType
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.reconciler import sending_order
from anabranch.fabric.softswitch import statistics
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import line
from anabranch.fabric.softswitch.refusals import RefusedError
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import REACTIVE_COOKIE

WANTED = {"s1": tables(rule(1), rule(2), rule(3))}


def test_switches_are_ordered_from_upstream_to_downstream() -> None:
    names = sending_order({"leaf", "root", "b", "a"}, ("root", "relay", "leaf"))
    assert names == ["root", "leaf", "a", "b"]


@dataclass
class Audited:
    """A controller whose one switch holds WANTED, and what was asked of the switch since."""

    controller: Controller
    switch: SoftSwitch
    asked: Counter[MultipartType] = field(default_factory=Counter)

    async def glance(self) -> frozenset[str]:
        self.asked.clear()
        return await self.controller.audit(whole=False)


@pytest.fixture
async def audited(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Audited]:
    network = line(1, host_ports=3)
    controller = Controller(lambda _: None, names={1: "s1"})
    farm = Farm(network, f"tcp:127.0.0.1:{await controller.listen_tcp('127.0.0.1', 0)}")
    made = Audited(controller, network.switches["s1"])

    def counted(kind: MultipartType, answer: statistics.Answer) -> statistics.Answer:
        def count(*arguments: object) -> object:
            made.asked[kind] += 1
            return answer(*arguments)  # type: ignore[arg-type]

        return count  # type: ignore[return-value]

    for kind, answer in tuple(statistics.ANSWERS.items()):
        monkeypatch.setitem(statistics.ANSWERS, kind, counted(kind, answer))
    try:
        await farm.start()
        await until(lambda: "s1" in controller.switches())
        assert await controller.apply(WANTED) == frozenset()
        yield made
    finally:
        await farm.close()
        await controller.close()


async def test_a_switch_that_did_not_change_is_only_asked_for_a_count(audited: Audited) -> None:
    audited.controller.install("s1", [rule(9, cookie=REACTIVE_COOKIE)])  # counts for nothing
    for _ in range(9):
        assert await audited.glance() == frozenset()
        assert audited.asked == {MultipartType.AGGREGATE: 2}
    assert await audited.glance() == frozenset()
    assert audited.asked == dict.fromkeys(
        (MultipartType.FLOW, MultipartType.GROUP_DESC, MultipartType.METER_CONFIG), 1
    )
    assert await audited.glance() == frozenset()
    assert audited.asked == {MultipartType.AGGREGATE: 2}


@pytest.mark.parametrize("strange", [False, True])
async def test_what_somebody_deletes_or_adds_is_repaired(audited: Audited, strange: bool) -> None:
    if strange:
        audited.switch.flow_mod(rule(7, cookie=5).add(), 0.0)
    else:
        gone = FlowMod(Command.DELETE_STRICT, Match(in_port=2), priority=10, table_id=0)
        audited.switch.flow_mod(gone, 0.0)
    assert held(audited.switch) != WANTED["s1"].rules
    assert await audited.glance() == {"s1"}
    assert audited.asked[MultipartType.FLOW] == 1
    assert held(audited.switch) == WANTED["s1"].rules
    assert await audited.glance() == frozenset()
    assert audited.asked == {MultipartType.AGGREGATE: 2}


async def test_a_change_that_leaves_the_count_alone_is_repaired_by_the_tenth(
    audited: Audited,
) -> None:
    other = rule(2, cookie=5).add()
    audited.switch.flow_mod(other, 0.0)
    found = [await audited.glance() for _ in range(10)]
    assert found == [frozenset()] * 9 + [{"s1"}]
    assert held(audited.switch) == WANTED["s1"].rules


async def test_a_switch_that_cannot_count_is_read(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[object]:
        raise RefusedError(Refusal.BAD_MULTIPART)

    monkeypatch.setitem(statistics.ANSWERS, MultipartType.AGGREGATE, refuse)
    assert await audited.glance() == frozenset()
    assert audited.asked[MultipartType.FLOW] == 1
    audited.switch.flow_mod(rule(7).add(), 0.0)
    assert await audited.glance() == {"s1"}
    assert not audited.controller.refusals
