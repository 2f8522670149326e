"""Who programs the site's switches: the director itself, or controllers in their own processes."""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import structlog
import yaml

from anabranch.core.errors import AnabranchError
from anabranch.core.events import Event
from anabranch.fabric import intents_json
from anabranch.fabric.announcements import Announcements
from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.fabric import Fabric, Options
from anabranch.fabric.host_services import Settings
from anabranch.fabric.intents import Intents
from anabranch.fabric.intents_json import Wanted
from anabranch.fabric.notify import StoredSubscriptions
from anabranch.fabric.openflow.messages import PortStats
from anabranch.fabric.pathlogic.logic import Path as VmPath
from anabranch.host.process import Child, ChildSpec
from anabranch.site.plan import BRIDGE, SitePlan
from anabranch.site.settings import SiteSettings
from anabranch.store.database import Database

_OPERATOR = "operator"
_AGAIN_S = 0.05
_TIMEOUT_S = 10.0
_log = structlog.get_logger("anabranch.fabric")


class Control(Protocol):
    """The site's hand on its switches."""

    def target(self, node: str) -> str | None:
        """Return the controller target of a node's switch; None: its controller dials in."""

    async def start(self) -> None: ...

    async def run(self) -> None:
        """Keep the switches in step, for ever."""

    async def stop(self) -> None: ...

    async def put(self, intents: Intents) -> frozenset[str]:
        """Have the switches carry exactly ``intents``; see :meth:`Fabric.put`."""

    async def connected(self) -> frozenset[str]:
        """Return the switches that are connected."""

    async def port_stats(self, switch: str) -> list[PortStats]: ...

    def children(self) -> Mapping[str, Child]: ...

    @property
    def fabric(self) -> Fabric | None:
        """The fabric itself, if it is in this process."""

    @property
    def active(self) -> str | None:
        """The controller process at work, if there is one."""


def switch_directory(settings: SiteSettings, node: str) -> Path:
    """Return where a node's Open vSwitch keeps its sockets."""
    return settings.run_dir / node / "ovs"


class InsideControl:
    """The director itself."""

    active: str | None = None

    def __init__(
        self,
        settings: SiteSettings,
        plan: SitePlan,
        on_event: Callable[[Event], None],
        database: Database,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self.fabric = Fabric(
            Options(
                names={node.dpid: node.name for node in plan.nodes.values()},
                links=plan.fabric_links,
                edge=plan.edge,
                hosts=Settings(
                    edge=plan.edge,
                    dhcp_server=plan.dhcp_port if settings.fabric.dhcp else None,
                    packet_in_rate=500,
                ),
                counters_s=5.0 if settings.fabric.redundancy else 0.0,
            ),
            on_event,
            callbacks=StoredSubscriptions(database),
        )

    def target(self, node: str) -> str | None:
        return f"unix:{self._path(node)}"

    def _path(self, node: str) -> Path:
        # Open vSwitch refuses sockets elsewhere.
        return switch_directory(self._settings, node) / f"{BRIDGE}.controller"

    async def start(self) -> None:
        for node in self._plan.nodes:
            self._path(node).parent.mkdir(parents=True, exist_ok=True)
            await self.fabric.controller.listen_unix(self._path(node), node)

    async def run(self) -> None:
        await self.fabric.run()

    async def stop(self) -> None:
        await self.fabric.close()

    async def put(self, intents: Intents) -> frozenset[str]:
        return await self.fabric.put(intents)

    async def connected(self) -> frozenset[str]:
        return frozenset(n for n, state in self.fabric.switches().items() if state.connected)

    async def port_stats(self, switch: str) -> list[PortStats]:
        return await self.fabric.port_stats(switch)

    def children(self) -> Mapping[str, Child]:
        return {}


@dataclass(slots=True)
class _Separate:
    """One controller process and the way to it."""

    child: Child
    client: httpx.AsyncClient
    active: bool = False


class SeparateControl:
    """One or two controllers in processes of their own: one at work, the other standing by.

    All hold the same intents. They share a lease; the kernel frees it when its holder dies, and
    whoever stood by is at work within a tenth of a second. The switches carry on meanwhile.
    """

    fabric: Fabric | None = None

    def __init__(
        self,
        settings: SiteSettings,
        plan: SitePlan,
        on_event: Callable[[Event], None],
        database: Database,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self.announcements = Announcements(
            on_event,
            lambda: {node.name: node.dpid for node in plan.nodes.values()},
            StoredSubscriptions(database),
        )
        self._directory = settings.run_dir / "fabric"
        self._token = self._directory / "token"
        self._intents: dict[str, Intents] = {}
        self._paths: tuple[VmPath, ...] = ()
        self._changing = asyncio.Lock()
        self._controllers = {
            f"controller{number}": self._controller(f"controller{number}")
            for number in range(1, settings.fabric.controllers + 1)
        }

    def _controller(self, name: str) -> _Separate:
        spec = ChildSpec(
            name=name,
            argv=(
                sys.executable,
                "-m",
                "anabranch",
                "fabric",
                "controller",
                str(self._directory / f"{name}.yaml"),
            ),
            stop_timeout=2.0,
        )
        child = Child(spec, self._settings.run_id, on_start=lambda _: None)
        transport = httpx.AsyncHTTPTransport(uds=str(self._socket(name)))
        return _Separate(
            child,
            httpx.AsyncClient(
                transport=transport, base_url="http://controller", timeout=_TIMEOUT_S
            ),
        )

    def _socket(self, name: str) -> Path:
        return self._directory / f"{name}.sock"

    @property
    def active(self) -> str | None:
        for name, controller in self._controllers.items():
            if controller.active:
                return name
        return None

    def target(self, node: str) -> str | None:
        return None

    async def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._token.touch(mode=0o600)
        self._token.write_text(secrets.token_urlsafe(32))
        for name, controller in self._controllers.items():
            file = self._directory / f"{name}.yaml"
            file.touch()
            file.chmod(0o600)
            file.write_text(yaml.safe_dump(self._file(name)))
            await controller.child.start()

    def _file(self, name: str) -> dict[str, Any]:
        """Return the controller's file; each link appears once."""
        links = [link for link in self._plan.fabric_links if link.src < link.dst]
        return {
            "listen": None,
            "api": f"unix:{self._socket(name)}",
            "token": str(self._token),
            "lease": str(self._directory / "lease"),
            "discover": False,
            "unicast": "icmp",
            "edge": sorted(map(str, self._plan.edge)),
            "dhcp_server": str(self._plan.dhcp_port) if self._settings.fabric.dhcp else None,
            "switches": [
                {
                    "name": node.name,
                    "dpid": node.dpid,
                    "connect": str(switch_directory(self._settings, node.name) / f"{BRIDGE}.mgmt"),
                }
                for node in self._plan.nodes.values()
            ],
            "links": [
                {
                    "between": [str(link.src), str(link.dst)],
                    "capacity_mbit": self._plan.fabric_links[link].capacity_mbit,
                    "redundant": self._plan.fabric_links[link].redundant,
                }
                for link in links
            ],
        }

    async def run(self) -> None:
        await self.announcements.open()
        try:
            async with asyncio.TaskGroup() as group:
                for name in self._controllers:
                    group.create_task(self._follow(name), name=f"follow:{name}")
        finally:
            await self.announcements.close()

    async def _follow(self, name: str) -> None:
        """Hear one controller's events, and tell it what is wanted whenever it is new."""
        controller = self._controllers[name]
        while True:
            try:
                async for record in self._events(controller):
                    controller.active = bool(record.get("active"))
                    if "kind" not in record:
                        await self._restore(controller)
                    elif controller.active:
                        self.announcements.publish(
                            Event(record["kind"], record["subject"], record["data"], record["time"])
                        )
            except (httpx.HTTPError, FabricError, ValueError, KeyError, TypeError) as error:
                _log.debug("controller.away", controller=name, error=repr(error))
            controller.active = False
            await asyncio.sleep(_AGAIN_S)

    async def _restore(self, controller: _Separate) -> None:
        """Tell everything in one step: what is not wanted yet would be removed until then."""
        wanted = Wanted(dict(self._intents), self._paths)
        if not wanted.intents and not wanted.paths:
            return
        try:
            await self._put(controller, "wanted", intents_json.dump_wanted(wanted))
        except DisconnectedError:
            raise
        except FabricError as error:  # it has been told, and tries again by itself
            _log.warning("controller.cannot", error=str(error))

    async def _events(self, controller: _Separate) -> AsyncIterator[dict[str, Any]]:
        timeout = httpx.Timeout(_TIMEOUT_S, read=None)
        async with controller.client.stream("GET", "/control/events", timeout=timeout) as answer:
            async for line in answer.aiter_lines():
                yield json.loads(line)

    async def stop(self) -> None:
        for controller in self._controllers.values():
            await controller.child.stop()
            await controller.client.aclose()

    async def put(self, intents: Intents, owner: str = "site") -> frozenset[str]:
        """Tell every controller; the one at work must have succeeded.

        Raises:
            FabricError: none has: those that are away are told when they come.
        """
        self._intents[owner] = intents
        answers = await asyncio.gather(
            *(self._tell(controller, intents, owner) for controller in self._controllers.values()),
            return_exceptions=True,
        )
        pending: frozenset[str] | None = None
        for controller, answer in zip(self._controllers.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, AnabranchError | httpx.HTTPError):
                    raise answer
                if controller.active and isinstance(answer, AnabranchError):
                    raise answer
            elif controller.active or pending is None:
                pending = answer
        if pending is None:
            raise DisconnectedError("no controller answers")
        return pending

    async def ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Have the controller at work answer a request about the network: status and JSON.

        What an operator asks for there is told to the other controller, too.

        Raises:
            DisconnectedError: no controller is at work.
        """
        if method == "GET":
            return await self._ask(self._at_work(), method, path, body)
        async with self._changing:
            controller = self._at_work()
            try:
                return await self._ask(controller, method, path, body)
            finally:  # also what a switch refused is wanted
                await self._share(controller)

    def _at_work(self) -> _Separate:
        controller = self._controllers.get(self.active or "")
        if controller is None:
            raise DisconnectedError("no controller is at work")
        return controller

    async def _ask(
        self, controller: _Separate, method: str, path: str, body: bytes
    ) -> tuple[int, bytes]:
        token = self._token.read_text("ascii").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            answer = await controller.client.request(method, path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise DisconnectedError(f"the controller does not answer: {error!r}") from error
        return answer.status_code, answer.content

    async def _share(self, asked: _Separate) -> None:
        """Keep what an operator wants of one controller, and tell the others."""
        try:
            answer = await asked.client.get("/control/wanted")
            wanted = intents_json.load_wanted(answer.content)
        except (httpx.HTTPError, FabricError) as error:
            _log.warning("controller.not_shared", error=repr(error))
            return
        self._intents[_OPERATOR] = wanted.intents.get(_OPERATOR, Intents())
        self._paths = wanted.paths
        for controller in self._controllers.values():
            if controller is not asked:  # one that is away is told when it comes
                with suppress(FabricError):
                    await self._restore(controller)

    async def _tell(self, controller: _Separate, intents: Intents, owner: str) -> frozenset[str]:
        return await self._put(controller, f"intents/{owner}", intents_json.dumps(intents))

    async def _put(self, controller: _Separate, what: str, body: bytes) -> frozenset[str]:
        """Tell a controller something.

        Raises:
            DisconnectedError: it does not answer, or nothing that can be understood.
            FabricError: it could not do it.
        """
        try:
            answer = await controller.client.put(f"/control/{what}", content=body)
            said = answer.json()
            if answer.is_error:
                raise FabricError(str(said.get("detail", answer.status_code)))
            return frozenset(said["pending"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DisconnectedError(f"the controller does not answer: {error!r}") from error

    async def connected(self) -> frozenset[str]:
        for controller in self._controllers.values():
            with suppress(httpx.HTTPError, ValueError, KeyError):
                state = (await controller.client.get("/control/state")).json()
                if state["active"]:
                    return frozenset(n for n, s in state["switches"].items() if s["connected"])
        return frozenset()

    async def port_stats(self, switch: str) -> list[PortStats]:
        for controller in self._controllers.values():
            with suppress(httpx.HTTPError, ValueError, TypeError):
                answer = await controller.client.get(f"/control/ports/{switch}")
                if answer.is_success:
                    return [PortStats(**entry) for entry in answer.json()]
        raise DisconnectedError(f"no controller reaches {switch}")

    def children(self) -> Mapping[str, Child]:
        return {name: controller.child for name, controller in self._controllers.items()}
