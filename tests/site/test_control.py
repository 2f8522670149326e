"""The director's hand on controllers of their own: what they are told, and what if none hears."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from structlog.testing import capture_logs
from tests.waiting import until

from anabranch.app.controller_file import ControllerFile
from anabranch.app.serving import listen_unix, serve
from anabranch.console import fabric_api, problems
from anabranch.console.control import make_control
from anabranch.core.events import Event
from anabranch.fabric import intents_json
from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.host_services import Unicast
from anabranch.fabric.intents import Flow, Intents
from anabranch.fabric.intents_json import Wanted
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.options import Options
from anabranch.fabric.wishes import StoredWishes
from anabranch.host.process import Child
from anabranch.site.control import InsideControl
from anabranch.site.plan import SitePlan, make_plan
from anabranch.site.separate import SeparateControl
from anabranch.site.settings import FabricSettings, RedundancyLink, SiteSettings
from anabranch.store.database import Database

TOKEN = "drawn"
WANTED = Intents((Flow("news", Match(eth_type=0x0800), PortRef("root", 1)),))
VM_PATH = {
    "name": "stream",
    "ingress": "root:10",
    "exit": "leaf1:99",
    "external": "192.168.1.181",
    "match": {"eth_type": 2048},
}


def settings(directory: Path, controllers: int = 2) -> SiteSettings:
    spare = RedundancyLink("leaf1", "leaf2", 10)
    fabric = FabricSettings(redundancy=(spare,), controllers=controllers)
    return SiteSettings("main", "run", directory, "sqlite+aiosqlite://", fabric=fabric)


class Bench:
    """A control whose children are not started: instead what answers at their sockets is ours."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.settings = settings(directory)
        self.plan: SitePlan = make_plan(self.settings)
        self.database = Database("sqlite+aiosqlite://")
        self.events: list[Event] = []
        self.control = SeparateControl(self.settings, self.plan, self.events.append, self.database)
        self.directory = directory / "fabric"
        self.directory.mkdir()
        (self.directory / "token").write_text(TOKEN)
        self.active = ""

    def background(self, work: "asyncio.Task[None]") -> None:
        async def end() -> None:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

        self._stack.push_async_callback(end)

    def follow(self) -> None:
        """Let the control listen to its controllers."""
        self.following = asyncio.create_task(self.control.run())
        self.background(self.following)

    @property
    def token(self) -> str:
        return (self.directory / "token").read_text()

    async def replace(self, control: SeparateControl) -> None:
        """Let another control have the sockets, as after a restart."""
        self.following.cancel()
        with suppress(asyncio.CancelledError):
            await self.following
        self._stack.push_async_callback(control.stop)
        self.control = control

    async def answer(self, name: str, token: str = TOKEN) -> Fabric:
        """Have a fabric without switches answer as a controller."""
        fabric = Fabric(Options(settle_s=0, counters_s=0), lambda _: None)
        app = FastAPI()
        app.state.fabric = fabric
        problems.install(app)
        app.include_router(make_control(fabric, lambda: self.active == name))
        app.include_router(fabric_api.make_router(token))
        listener = self._stack.enter_context(listen_unix(self.directory / f"{name}.sock"))
        self._stack.push_async_callback(fabric.close)
        self.background(asyncio.create_task(fabric.run()))
        self.background(asyncio.create_task(serve(app, listener, None)))
        return fabric


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        made = Bench(tmp_path, stack)
        await made.database.open()
        stack.push_async_callback(made.database.close)
        stack.push_async_callback(made.control.stop)
        yield made


def test_a_controllers_file_is_one_that_it_understands(bench: Bench) -> None:
    texts = [yaml.safe_dump(bench.control._file(name)) for name in ("controller1", "controller2")]
    first, second = (ControllerFile.model_validate(yaml.safe_load(text)) for text in texts)
    assert first.api == f"unix:{bench.directory}/controller1.sock"
    assert second.api == f"unix:{bench.directory}/controller2.sock"
    assert first.lease == second.lease == bench.directory / "lease"
    assert first.token == bench.directory / "token"
    assert (first.listen, first.intents, first.discover) == (None, None, False)
    options = first.options()
    assert options.links == bench.plan.layout.links
    assert any(info.redundant for info in options.links.values())
    assert options.names == {node.dpid: node.name for node in bench.plan.nodes.values()}
    assert options.edge == bench.plan.edge
    assert options.hosts is not None
    assert (options.hosts.unicast, options.hosts.dhcp_server) == (Unicast.ICMP, None)
    assert all(switch.connect is not None for switch in first.switches)


async def test_what_controllers_are_given_is_its_owners_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_: Child) -> None: ...

    monkeypatch.setattr(Child, "start", start)
    old = bench.directory / "controller1.yaml"
    old.write_text("")
    old.chmod(0o644)
    await bench.control.start()
    found = {path.name: path.stat().st_mode & 0o777 for path in bench.directory.glob("*.yaml")}
    assert found == {"controller1.yaml": 0o600, "controller2.yaml": 0o600}


async def test_where_no_controller_answers(bench: Bench) -> None:
    with pytest.raises(DisconnectedError, match="no controller answers"):
        await bench.control.put(WANTED)
    with pytest.raises(DisconnectedError, match="no controller is at work"):
        await bench.control.ask("GET", "/api/fabric/paths", b"")
    with pytest.raises(DisconnectedError, match="no controller reaches root"):
        await bench.control.port_stats("root")
    assert await bench.control.connected() == frozenset()
    assert bench.control.active is None
    assert bench.control.target("root") is None
    assert set(bench.control.children()) == {"controller1", "controller2"}


async def test_whoever_comes_later_is_told_what_is_wanted(bench: Bench) -> None:
    with pytest.raises(DisconnectedError):
        await bench.control.put(WANTED)
    bench.follow()
    bench.active = "controller1"
    first = await bench.answer("controller1")
    await until(lambda: first.intents("site") == WANTED)
    assert bench.control.active == "controller1"
    assert await bench.control.put(Intents()) == frozenset()
    assert first.intents("site") == Intents()
    second = await bench.answer("controller2")
    await bench.control.put(WANTED)
    await until(lambda: second.intents("site") == WANTED)
    assert bench.control.active == "controller1"


async def test_what_the_one_at_work_refuses_is_refused(bench: Bench) -> None:
    bench.follow()
    bench.active = "controller1"
    first = await bench.answer("controller1")
    await until(lambda: bench.control.active)
    await bench.control.put(Intents())
    await first.put(WANTED, "somebody")
    with pytest.raises(FabricError, match="asked for twice: news"):
        await bench.control.put(WANTED)


async def test_what_an_operator_asks_for_is_told_to_both(bench: Bench) -> None:
    bench.follow()
    bench.active = "controller1"
    first, second = await bench.answer("controller1"), await bench.answer("controller2")
    await until(lambda: bench.control.active)
    asked = "POST", "/api/fabric/vm-paths", json.dumps(VM_PATH).encode()
    with pytest.raises(DisconnectedError, match="has just begun"):  # what was wanted comes first
        await bench.control.ask(*asked)
    await bench.control.put(Intents())
    status, body = await bench.control.ask(*asked)
    assert (status, json.loads(body)["path"]["name"]) == (201, "stream")
    assert first.followed() == second.followed() != {}
    path = {"name": "own", "match": {"eth_type": 2054}, "ingress": "root:10"}
    status, body = await bench.control.ask("POST", "/api/fabric/paths", json.dumps(path).encode())
    assert status == 201, body
    assert first.intents("operator") == second.intents("operator") != Intents()
    status, _ = await bench.control.ask("POST", "/api/fabric/vm-paths", b"{}")
    assert status == 422
    status, _ = await bench.control.ask("DELETE", "/api/fabric/vm-paths/stream", b"")
    assert status == 204
    assert first.followed() == second.followed() == {}


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(_: Child) -> None: ...

    monkeypatch.setattr(Child, "start", start)


@pytest.mark.usefixtures("no_children")
async def test_what_an_operator_asked_for_is_told_with_the_sites_own_after_a_restart(
    bench: Bench,
) -> None:
    (bench.directory / "token").unlink()
    await bench.control.start()
    bench.follow()
    bench.active = "controller1"
    first = await bench.answer("controller1", bench.token)
    await until(lambda: bench.control.active)
    await bench.control.put(WANTED)
    await bench.control.ask("POST", "/api/fabric/vm-paths", json.dumps(VM_PATH).encode())
    path = {"name": "own", "match": {"eth_type": 2054}, "ingress": "root:10"}
    await bench.control.ask("POST", "/api/fabric/paths", json.dumps(path).encode())
    own, followed = first.intents("operator"), first.followed()
    assert own.names == {"own"}

    again = SeparateControl(bench.settings, bench.plan, bench.events.append, bench.database)
    await bench.replace(again)
    await again.start()
    first = await bench.answer("controller1", bench.token)
    steps = []
    restore = first.restore

    async def counted(*arguments: Any) -> frozenset[str]:
        steps.append(arguments)
        return await restore(*arguments)

    first.restore = counted  # type: ignore[method-assign]
    bench.follow()
    await until(lambda: again.active)
    assert not first.owners(), "nothing before the site has said what it wants"
    await again.put(WANTED)
    assert first.owners() == {"site": WANTED, "operator": own}
    assert first.followed() == followed
    assert len(steps) == 1


async def test_inside_the_director_the_first_step_has_everything(bench: Bench) -> None:
    store = StoredWishes(bench.database)
    own = Flow("own", Match(eth_type=0x0806), PortRef("root", 10))
    clash = Flow("news", Match(eth_type=0x0806), PortRef("root", 11))
    kept = Wanted({"operator": Intents((own, clash))})
    await store.save(intents_json.dump_wanted(kept))
    control = InsideControl(bench.settings, bench.plan, bench.events.append, bench.database)
    await control.start()
    bench.background(asyncio.create_task(control.run()))
    try:
        with capture_logs() as logs:
            await control.put(WANTED)
        assert control.fabric.owners() == {"site": WANTED, "operator": Intents((own,))}
        assert [entry["name"] for entry in logs if entry["event"] == "wish.not_restored"] == [
            "news"
        ]
        await control.put(Intents())
        assert control.fabric.intents("site") == Intents()
        assert control.fabric.intents("operator").names == {"own"}
        assert await store.load() == intents_json.dump_wanted(kept), "nothing is lost"
    finally:
        await control.stop()


async def test_a_controller_that_starts_anew_is_told_everything(bench: Bench) -> None:
    bench.follow()
    bench.active = "controller1"
    first = await bench.answer("controller1")
    await until(lambda: bench.control.active)
    await bench.control.put(WANTED)
    await bench.control.ask("POST", "/api/fabric/vm-paths", json.dumps(VM_PATH).encode())
    second = await bench.answer("controller2")
    await until(lambda: second.followed() == first.followed())
    await until(lambda: second.intents("site") == WANTED)


async def test_only_what_the_one_at_work_says_is_heard(bench: Bench) -> None:
    bench.follow()
    bench.active = "controller1"
    first, second = await bench.answer("controller1"), await bench.answer("controller2")
    await until(lambda: bench.control.active)
    await until(lambda: second.announcements._bus._queues and first.announcements._bus._queues)
    second.publish(Event("link.down", "unheard"))
    first.publish(Event("link.down", "heard"))
    await until(lambda: bench.events)
    bench.active = "controller2"
    second.publish(Event("link.up", "heard too"))
    await until(lambda: len(bench.events) == 2)
    assert [event.subject for event in bench.events] == ["heard", "heard too"]
