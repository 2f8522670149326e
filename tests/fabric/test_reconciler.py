"""In what order switches are served, when they are told again, and what an audit reads."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from tests.fabric.test_controller_softswitch import held, rule, tables
from tests.waiting import until

from anabranch.fabric import reconciler
from anabranch.fabric.controller import Controller
from anabranch.fabric.failures import NotDoneError
from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.openflow.messages import Command, FlowMod, MultipartType
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.reconciler import _Retry, sending_order
from anabranch.fabric.softswitch import statistics
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import line
from anabranch.fabric.softswitch.refusals import RefusedError
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import REACTIVE_COOKIE, Tables

WANTED = {"s1": tables(rule(1), rule(2), rule(3))}


def test_switches_are_ordered_from_upstream_to_downstream() -> None:
    names = sending_order({"leaf", "root", "b", "a"}, ("root", "relay", "leaf"))
    assert names == ["root", "leaf", "a", "b"]


@dataclass
class Audited:
    """A controller whose one switch holds WANTED, and what was asked of the switch since."""

    controller: Controller
    farm: Farm
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
    made = Audited(controller, farm, network.switches["s1"])

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


async def test_who_goes_on_refusing_is_told_again_ever_more_seldom(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, soft = audited.controller, audited.switch
    pauses: list[float] = []

    def recorded(wanted: Tables, connection: Connection | None, pause: float) -> _Retry:
        pauses.append(pause)
        return _Retry(wanted, connection, pause)

    monkeypatch.setattr(reconciler, "_Retry", recorded)
    monkeypatch.setattr(reconciler, "AGAIN_S", 0.01)
    monkeypatch.setattr(reconciler, "AGAIN_MOST_S", 0.05)

    async def refused_as_after(change: Callable[[], object]) -> None:
        await until(lambda: len(pauses) >= 5)
        pauses.clear()
        change()
        await until(lambda: 0.01 in pauses)
        del pauses[: pauses.index(0.01)]
        await until(lambda: len(pauses) >= 5)
        assert pauses[:5] == [0.01, 0.02, 0.04, 0.05, 0.05]

    soft._table_size = 3
    more = {"s1": tables(*WANTED["s1"].rules, rule(4))}
    with pytest.raises(NotDoneError):
        await controller.apply(more)
    with pytest.raises(NotDoneError):
        await controller.apply(more)  # the same: it does not begin anew
    await until(lambda: len(pauses) >= 5)
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.05, 0.05]

    others = {"s1": tables(*WANTED["s1"].rules, rule(5))}
    tasks: list[asyncio.Task[frozenset[str]]] = []
    await refused_as_after(lambda: tasks.append(asyncio.create_task(controller.apply(others))))
    with pytest.raises(NotDoneError):
        await tasks[0]
    await refused_as_after(lambda: audited.farm.disconnect("s1"))

    soft._table_size = 4
    await until(lambda: held(soft) == others["s1"].rules)
    await until(lambda: not controller.failures())
    assert controller._reconciler._retries == {}


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
