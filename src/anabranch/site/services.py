"""The site's nodes as service nodes: a child each, in the namespace of the host at its switch.

A node's child is ``anabranch module serve``, as on any router; it ends with the node, and its
sandboxes with it. One that died begins anew: who installed modules there renews them by SETUP. So
it is after a director that was killed, too.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import yaml

from anabranch.core.errors import ConflictError, NotFoundError, UnavailableError
from anabranch.core.events import Event
from anabranch.core.files import write_private
from anabranch.host.journal import Journal
from anabranch.host.network import devices, entered
from anabranch.host.process import Child, ChildSpec, ProcessError
from anabranch.services.node.control_client import ControlError, ask
from anabranch.services.planes.linux import namespaces_of
from anabranch.services.runtime import run_id_of
from anabranch.site.plan import HOST_DEVICE, NodePlan
from anabranch.site.service_users import ServiceUsers
from anabranch.site.settings import SiteSettings
from anabranch.site.switched import SwitchedUnderlay

_STOP_S = 10.0
"""Seconds that a node has to end its sandboxes."""
_MAX_NAME = 32
_log = structlog.get_logger("anabranch.services")


class SiteServices:
    """The service nodes of a site.

    Args:
        underlay: tells which nodes are up; None: the site has no switches, and so no nodes.
        users: who may install modules.
        journal: has what a node that is killed would leave.
    """

    def __init__(
        self, settings: SiteSettings, underlay: SwitchedUnderlay | None, users: ServiceUsers,
        journal: Journal, on_event: Callable[[Event], None],
    ) -> None:  # fmt: skip
        self.users = users
        self._journal = journal
        self._settings = settings
        self._underlay = underlay
        self._on_event = on_event
        self._children: dict[str, Child] = {}
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Read the users and start a node wherever one is wanted and up.

        Raises:
            UsersError: the file of users is no good.
        """
        await self.users.load()
        await self.follow()

    async def follow(self) -> None:
        """Have a service node at exactly those nodes that are up and shall have one."""
        wanted = self._settings.services
        if wanted is None or self._underlay is None:
            return
        async with self._changing:
            up = {
                name for name in self._underlay.up if wanted.nodes is None or name in wanted.nodes
            }
            for name in self._children.keys() - up:
                await self._stop(name)
            for name in sorted(up - self._children.keys()):
                plan = self._underlay.plan.nodes[name]
                if plan.tunnel is None:  # those of other machines are no service nodes yet
                    await self._start(plan)

    async def stop(self) -> None:
        async with self._changing:
            await asyncio.gather(*(self._stop(name) for name in list(self._children)))

    def children(self) -> Mapping[str, Child]:
        """Return their processes by name."""
        return {child.spec.name: child for child in self._children.values()}

    async def report(self) -> list[dict[str, Any]]:
        """Return every service node, with its modules if it answers."""
        names = list(self._children)
        found = await asyncio.gather(*(self._report(name) for name in names))
        return sorted(found, key=lambda each: str(each["name"]))

    async def remove(self, node: str, user: str, module: str) -> None:
        """Remove a user's module from a node.

        Raises:
            NotFoundError: there is no such service node.
            ControlError: it has no such module, or does not answer.
        """
        await ask(self._socket(node), "remove", user=user, module=module)
        self._on_event(Event("service.removed", node, {"user": user, "module": module}))

    async def log(self, node: str, user: str, lines: int) -> list[str]:
        """Return the last lines that a user's modules printed. Raises as :meth:`remove`."""
        answer = await ask(self._socket(node), "log", user=user, lines=lines)
        return [str(line) for line in answer.get("lines", ())]

    async def tell_users(self) -> None:
        """Have every node know the users as they are now; one that is away reads them later."""
        text = self._users_text()
        for name in self._children:
            await asyncio.to_thread(write_private, self._directory(name) / "users.yaml", text)
            with suppress(ControlError):
                await ask(self._directory(name) / "control.sock", "reload")

    async def _report(self, name: str) -> dict[str, Any]:
        child = self._children[name]
        about: dict[str, Any] = {
            "name": name, "pid": child.pid, "restarts": child.restarts, "answers": False,
            "address": self._address(name), "sessions": 0, "modules": [], "building_blocks": {},
        }  # fmt: skip
        with suppress(ControlError):
            said = await ask(self._directory(name) / "control.sock", "status")
            about |= {key: said[key] for key in ("sessions", "modules", "building_blocks")}
            about["answers"] = True
        return about

    def _address(self, name: str) -> str | None:
        """Return where this machine reaches a node with its signalling."""
        assert self._underlay is not None
        plan = self._underlay.plan.nodes[name]
        if plan.access is not None and plan.access.address is not None:
            return str(plan.access.address.ip)
        return str(plan.overlay_address)

    async def _start(self, plan: NodePlan) -> None:
        directory = self._directory(plan.name)
        try:
            command = await asyncio.to_thread(self._prepare, plan, directory)
            child = Child(
                ChildSpec(
                    name=f"service:{plan.name}", argv=command,
                    netns=plan.namespace, stop_timeout=_STOP_S, first_delay=0.5,
                ),
                self._settings.run_id,
                on_line=lambda _stream, line: _log.info("node", node=plan.name, said=line[:500]),
            )  # fmt: skip
            await child.start()
        except (ProcessError, OSError) as error:
            _log.error("service.unavailable", node=plan.name, error=str(error))
            return
        self._children[plan.name] = child
        self._on_event(Event("service.up", plan.name, {}))

    async def _stop(self, name: str) -> None:
        await self._children.pop(name).stop()
        self._on_event(Event("service.down", name, {}))

    def _prepare(self, plan: NodePlan, directory: Path) -> tuple[str, ...]:
        """Make what a node needs; return its command. It blocks."""
        name = self._name_of(plan)
        self._journal.record("netnses", namespaces_of(name))
        self._journal.record("cgroups", f"{run_id_of(name)}-")
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_private(directory / "users.yaml", self._users_text())
        with entered(plan.namespace):  # modules look at packets that pass: the host is a router now
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            for which in ("all", "default"):
                Path(f"/proc/sys/net/ipv4/conf/{which}/rp_filter").write_text("0")
        return self._command(plan, directory)

    def _name_of(self, plan: NodePlan) -> str:
        """Return what a node is called among all of this machine."""
        return f"{self._settings.name}-{plan.name}"[:_MAX_NAME].strip("-").lower()

    def _command(self, plan: NodePlan, directory: Path) -> tuple[str, ...]:
        wanted = self._settings.services
        assert wanted is not None
        there = devices(plan.namespace)
        # Not the switch's own: what it carries has been steered already, and is none of the host's.
        own = [HOST_DEVICE, *([plan.access.device] if plan.access is not None else [])]
        return (
            sys.executable, "-m", "anabranch", "module", "serve", "--name", self._name_of(plan),
            "--users", str(directory / "users.yaml"), "--control", str(directory / "control.sock"),
            "--state", str(wanted.state / plan.name),
            *(word for device in own if device in there for word in ("--device", device)),
        )  # fmt: skip

    def _users_text(self) -> bytes:
        users = [user.document() for user in self.users.all.values()]
        return yaml.safe_dump({"users": users}).encode()

    def _directory(self, name: str) -> Path:
        return self._settings.run_dir / name / "service"

    def _socket(self, name: str) -> Path:
        if self._settings.services is None:
            raise ConflictError("this site has no service nodes: see services in the settings")
        if name not in self._children:
            raise NotFoundError(f"there is no service node named {name[:60]!r}")
        if not self._children[name].running:
            raise UnavailableError(f"the service node {name} is just being started")
        return self._directory(name) / "control.sock"
