"""Controllers of the site's switches in processes of their own, told and heard by the director."""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import structlog
import yaml

from anabranch.core.errors import AnabranchError
from anabranch.core.events import Event
from anabranch.core.files import write_private
from anabranch.fabric import intents_json
from anabranch.fabric.announcements import Announcements
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents import Intents
from anabranch.fabric.intents_json import Wanted
from anabranch.fabric.model import Link, PortRef
from anabranch.fabric.notify import StoredSubscriptions
from anabranch.fabric.openflow.messages import PortStats
from anabranch.fabric.wishes import OPERATOR, StoredWishes, Wishes
from anabranch.host.process import Child, ChildSpec
from anabranch.site.control import SITE, switch_directory
from anabranch.site.layout import Layout
from anabranch.site.plan import BRIDGE, SitePlan
from anabranch.site.settings import SiteSettings
from anabranch.store.database import Database

_AGAIN_S = 0.05
_TIMEOUT_S = 10.0
_JSON = {"Content-Type": "application/json"}
_MISUSE = 422  # see console/problems.py
_log = structlog.get_logger("anabranch.fabric")


@dataclass(slots=True)
class _Separate:
    """One controller process and the way to it.

    Attributes:
        listening: its events are heard, so that its end would be.
        told: it has heard everything since it began.
        telling: what is wanted is told in the order in which it came to be.
    """

    child: Child
    client: httpx.AsyncClient
    active: bool = False
    listening: bool = False
    told: bool = False
    telling: asyncio.Lock = field(default_factory=asyncio.Lock)


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
        self._layout = plan.layout
        self.announcements = Announcements(
            on_event,
            lambda: {node.name: node.dpid for node in plan.nodes.values()},
            StoredSubscriptions(database),
        )
        self._directory = settings.run_dir / "fabric"
        self._token = self._directory / "token"
        self._site: Intents | None = None
        self._wishes = Wishes(StoredWishes(database))
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
        await self._wishes.load()
        self._directory.mkdir(parents=True, exist_ok=True)
        write_private(self._token, secrets.token_urlsafe(32).encode())
        self._write_files()
        for controller in self._controllers.values():
            await controller.child.start()

    def _write_files(self) -> None:
        for name in self._controllers:
            file = self._directory / f"{name}.yaml"
            write_private(file, yaml.safe_dump(self._file(name)).encode())

    def _file(self, name: str) -> dict[str, Any]:
        """Return the controller's file."""
        network = self._network()
        return {
            "listen": None,
            "api": f"unix:{self._socket(name)}",
            "token": str(self._token),
            "lease": str(self._directory / "lease"),
            "discover": False,
            "unicast": "icmp",
            "edge": sorted(map(str, self._plan.edge)),
            "outside": sorted(map(str, self._plan.outside)),
            "dhcp_server": str(self._plan.dhcp_port) if self._settings.fabric.dhcp else None,
            "switches": network["switches"],
            "links": [
                {"between": [link.pop("src"), link.pop("dst")], **link} for link in network["links"]
            ],
        }

    def _network(self) -> dict[str, list[dict[str, Any]]]:
        """Return the switches that are dialled, and the links, each in one direction."""
        return {
            "switches": [
                {
                    "name": name,
                    "dpid": self._plan.nodes[name].dpid,
                    "connect": str(switch_directory(self._settings, name) / f"{BRIDGE}.mgmt"),
                }
                for name in sorted(self._layout.up)
            ],
            "links": [
                {
                    "src": str(link.src),
                    "dst": str(link.dst),
                    "capacity_mbit": info.capacity_mbit,
                    "redundant": info.redundant,
                }
                for link, info in self._layout.links.items()
                if link.src < link.dst
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
                        controller.listening = True
                        await self._begin(controller)
                    elif controller.active:
                        self.announcements.publish(
                            Event(record["kind"], record["subject"], record["data"], record["time"])
                        )
            except (httpx.HTTPError, FabricError, ValueError, KeyError, TypeError) as error:
                _log.debug("controller.away", controller=name, error=repr(error))
            controller.active = controller.listening = controller.told = False
            await asyncio.sleep(_AGAIN_S)

    async def _begin(self, controller: _Separate) -> None:
        """Tell of the network, and of everything as soon as the site has said what it wants.

        Once: to be told everything again would undo what it was asked for meanwhile.
        """
        await self._tell_network(controller)
        try:
            async with controller.telling:
                if self._site is not None and not controller.told:
                    await self._tell_all(controller)
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

    async def expect(self, layout: Layout) -> None:
        self._layout = layout
        self._write_files()  # for one that starts anew
        for controller in self._controllers.values():
            with suppress(DisconnectedError):  # it is told when it comes
                await self._tell_network(controller)

    async def _tell_network(self, controller: _Separate) -> None:
        async with controller.telling:
            await self._put(controller, "network", json.dumps(self._network()).encode())

    async def settled(self) -> None:
        if self._site is not None:
            await self.put(self._site)

    async def put(self, intents: Intents) -> frozenset[str]:
        """Tell every controller; the one at work must have succeeded.

        Raises:
            FabricError: none has: those that are away are told when they come.
        """
        self._site = intents
        answers = await asyncio.gather(
            *(self._tell(controller) for controller in self._controllers.values()),
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
            DisconnectedError: no controller is at work, or it has just begun.
            StoreError: what the operator wants now cannot be kept.
        """
        if method == "GET":
            return await self._ask(self._at_work(), method, path, body)
        async with self._changing:
            controller = self._at_work()
            if not controller.told:
                await self._begin(controller)
            if not controller.told:
                raise DisconnectedError("the controller has just begun; try again")
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
        headers = {"Authorization": f"Bearer {token}", **_JSON}
        try:
            answer = await controller.client.request(method, path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise DisconnectedError(f"the controller does not answer: {error!r}") from error
        return answer.status_code, answer.content

    async def _share(self, asked: _Separate) -> None:
        """Keep what operators want of one controller, and tell the others."""
        try:
            answer = await asked.client.get("/control/wanted")
            wanted = intents_json.load_wanted(answer.content)
        except (httpx.HTTPError, FabricError) as error:
            _log.warning("controller.not_shared", error=repr(error))
            return
        if not asked.told:  # it has begun anew meanwhile, and knows nothing
            return
        operators = {OPERATOR: wanted.intents.get(OPERATOR, Intents())}
        try:
            await self._wishes.keep(Wanted(operators, wanted.paths, wanted.links))
        finally:
            for controller in self._controllers.values():
                if controller is not asked:  # one that is away is told when it comes
                    controller.told = False
                    with suppress(FabricError):
                        await self._begin(controller)

    async def _tell(self, controller: _Separate) -> frozenset[str]:
        """Tell what the site wants. Raises as :meth:`_put`."""
        async with controller.telling:
            if not controller.told:
                return await self._tell_all(controller)
            assert self._site is not None
            body = intents_json.dumps(self._site)
            return frozenset((await self._put(controller, f"intents/{SITE}", body))["pending"])

    async def _tell_all(self, controller: _Separate) -> frozenset[str]:
        """Tell everything in one step: what is not wanted yet would be removed until then.

        Call it with ``telling`` held. Raises as :meth:`_put`.
        """
        assert self._site is not None
        kept = self._wishes.kept
        wanted = Wanted({SITE: self._site, **kept.intents}, kept.paths, kept.links)
        try:
            said = await self._put(controller, "wanted", intents_json.dump_wanted(wanted))
        except (DisconnectedError, MisuseError):
            raise
        except FabricError:
            controller.told = controller.listening
            raise
        controller.told = controller.listening
        self._wishes.refuse(said["refused"])
        return frozenset(said["pending"])

    async def _put(self, controller: _Separate, what: str, body: bytes) -> dict[str, Any]:
        """Tell a controller something, and return what it says.

        Raises:
            DisconnectedError: it does not answer, or nothing that can be understood.
            MisuseError: what is wanted contradicts itself; nothing has changed.
            FabricError: it could not do it, and tries again.
        """
        try:
            answer = await controller.client.put(f"/control/{what}", content=body, headers=_JSON)
            said = answer.json()
            if answer.is_error:
                kind = MisuseError if answer.status_code == _MISUSE else FabricError
                raise kind(str(said.get("detail", answer.status_code)))
            return {"pending": list(said["pending"]), "refused": dict(said.get("refused", {}))}
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DisconnectedError(f"the controller does not answer: {error!r}") from error

    async def connected(self) -> frozenset[str]:
        try:
            switches = (await self._state())["switches"]
        except DisconnectedError:
            return frozenset()
        return frozenset(name for name, state in switches.items() if state["connected"])

    async def links(self) -> Mapping[Link, bool]:
        links: dict[Link, bool] = {}
        for (src, src_port), (dst, dst_port), up in (await self._state())["links"]:
            links[Link(PortRef(src, src_port), PortRef(dst, dst_port))] = up
        return links

    async def _state(self) -> dict[str, Any]:
        """Return what the controller at work says of itself and its network.

        Raises:
            DisconnectedError: none says that it is at work.
        """
        for controller in self._controllers.values():
            with suppress(httpx.HTTPError, ValueError, KeyError):
                state: dict[str, Any] = (await controller.client.get("/control/state")).json()
                if state["active"]:
                    return state
        raise DisconnectedError("no controller is at work")

    async def port_stats(self, switch: str) -> list[PortStats]:
        for controller in self._controllers.values():
            with suppress(httpx.HTTPError, ValueError, TypeError):
                answer = await controller.client.get(f"/control/ports/{switch}")
                if answer.is_success:
                    return [PortStats(**entry) for entry in answer.json()]
        raise DisconnectedError(f"no controller reaches {switch}")

    def children(self) -> Mapping[str, Child]:
        return {name: controller.child for name, controller in self._controllers.items()}
