"""The agents of one machine over real sockets: they hang as planned, and report to the root."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from anabranch.core.errors import UnavailableError
from anabranch.site.agent import Reporting
from anabranch.site.agents import Agents
from anabranch.tree.events import Deliver, NodeEvent
from anabranch.tree.metrics import CPU, MACHINES
from anabranch.tree.model import Role
from anabranch.tree.receivers import ReceiverReport
from anabranch.tree.reporter import Readings
from anabranch.tree.soleil.messages import FullStats, Message, ReqFullStats

UP = {"relay1": Role.RELAY, "relay2": Role.RELAY, "leaf1": Role.LEAF, "leaf2": Role.LEAF}
PLAN = {"relay1": "root", "relay2": "root", "leaf1": "relay1", "leaf2": "relay2"}


class Gauge:
    """A node whose load is known, with a viewer if it is a leaf."""

    def __init__(self, name: str, fails: set[str]) -> None:
        self._name = name
        self._fails = fails

    async def read(self) -> Readings:
        if self._name in self._fails:
            raise UnavailableError("the gauge is broken")
        viewers = {}
        if self._name.startswith("leaf"):
            viewers["v"] = ReceiverReport("news/high", 1000, 0, packets_sent=10, jitter_ms=7.0)
        return Readings(viewers, cpu=20.0)


class Machine:
    def __init__(self, directory: Path) -> None:
        self.events: list[NodeEvent] = []
        self.fails: set[str] = set()
        self.agents = Agents(
            "root",
            directory / "tree",
            Reporting(interval_s=0.05),
            lambda name: Gauge(name, self.fails),
            on_event=self.events.append,
        )

    @property
    def present(self) -> dict[str, str]:
        places = self.agents.registry.nodes.values()
        return {place.name: place.parent for place in places if place.lost is None}

    def whole(self, stream: str) -> dict[str, float]:
        containers = self.agents.root.reporter.whole.containers
        for each in containers:
            if each.stream == stream:
                return {**each.values, "weight": each.weight or 0.0}
        return {}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path)
    await made.agents.start()
    await made.agents.follow(PLAN, UP)
    yield made
    await made.agents.stop()


async def settled(machine: Machine, plan: dict[str, str], up: dict[str, Role]) -> None:
    async with asyncio.timeout(20.0):
        while machine.present != plan:
            await machine.agents.follow(plan, up)  # as the site does, in every round
            await asyncio.sleep(0.05)


async def test_nodes_hang_as_planned_and_the_root_knows_all_figures(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole(MACHINES).get("weight") == 5)
    assert machine.whole(MACHINES)[CPU] == 20.0
    await until(lambda: machine.whole("news/high").get("weight") == 2)
    assert machine.whole("news/high")["injitter"] == 7.0
    assert machine.agents.root.reporter.last().keys() == {"relay1", "relay2"}


async def test_nodes_follow_the_plan(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    moved = {**PLAN, "leaf1": "relay2", "relay1": "relay2"}
    await settled(machine, moved, UP)
    without = {"relay2": "root", "leaf1": "relay2", "leaf2": "relay2"}
    up = {name: UP[name] for name in without}
    await settled(machine, without, up)
    assert machine.agents.agent("relay1") is None
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole(MACHINES).get("weight") == 5)


async def test_a_node_answers_with_its_own_figures(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole("news/high").get("weight") == 2)
    asked = 1368548950000
    machine.agents.root.node.send(
        ReqFullStats("news/high"), "leaf2", time_ms=asked, in_seconds=True
    )

    def answers() -> list[Message]:
        found = [event.message for event in machine.events if isinstance(event, Deliver)]
        return [message for message in found if isinstance(message.body, FullStats)]

    await until(lambda: len(answers()) == 1)
    (answer,) = answers()
    assert answer.sender == "leaf2"
    assert isinstance(answer.body, FullStats)
    assert (answer.time_ms, answer.in_seconds) == (asked, True)  # seconds, as the request's
    assert answer.body.pipeline == "news/high"
    assert {each.stream for each in answer.body.containers} == {"news/high"}


async def test_a_root_that_begins_anew_finds_its_tree_again(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    before = machine.agents.root
    await machine.agents.restart_root()
    assert machine.agents.root is not before
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole(MACHINES).get("weight") == 5)


async def test_a_node_that_cannot_be_read_is_missing_and_comes_back(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole("news/high").get("weight") == 2)
    machine.fails.add("leaf1")
    await until(lambda: machine.whole("news/high").get("weight") == 1)
    machine.fails.clear()
    await until(lambda: machine.whole("news/high").get("weight") == 2)
