"""The SOLEIL tree of a site: the root's own agent, and those of the nodes on this machine.

Each is a node as on any other machine, but that it is reached over a Unix socket in the run
directory. Who hangs from whom follows the plan: a node that hangs elsewhere is redirected.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from anabranch.core.errors import AnabranchError
from anabranch.site.agent import Agent, Gauge, Reporting
from anabranch.tree.branch import BranchMember
from anabranch.tree.events import NodeEvent
from anabranch.tree.metrics import LARGEST
from anabranch.tree.model import Role
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.registry import Registry
from anabranch.tree.root import RootMember
from anabranch.tree.soleil.messages import Hello
from anabranch.tree.transport.dialler import Nearby

_log = structlog.get_logger("anabranch.tree")


class Agents:
    """Runs the agents.

    Args:
        root: the root's name.
        directory: where the nodes of this machine find each other; this user's alone.
        gauge: makes a node's.
        on_event: told what concerns the root and the tree; must not block.
        heaviest: the weight that a child can have at most.
        run_id: mark of the processes of pipelines.
        overlay: where a node's pipelines are; None: there can be none.
        connection: further arguments of the root's :class:`TreeNode`.

    Attributes:
        root: the root's agent, once started.
    """

    def __init__(
        self,
        root: str,
        directory: Path,
        reporting: Reporting,
        gauge: Callable[[str], Gauge],
        *,
        on_event: Callable[[NodeEvent], None],
        heaviest: Callable[[str], float] = lambda _: LARGEST,
        run_id: str = "",
        overlay: Callable[[str], Overlay | None] = lambda _: None,
        **connection: Any,
    ) -> None:
        self._root_name = root
        self._nearby = Nearby(directory, root)
        self._reporting = reporting
        self._gauge = gauge
        self._on_event = on_event
        self._heaviest = heaviest
        self._run_id = run_id
        self._overlay = overlay
        self._connection = connection
        self._parents: Mapping[str, str] = {}
        self._agents: dict[str, Agent] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()

    @property
    def root(self) -> Agent:
        """The root's agent."""
        return self._agents[self._root_name]

    @property
    def registry(self) -> Registry:
        """The root's picture of the tree."""
        assert isinstance(self.root.member, RootMember)
        return self.root.member.registry

    def agent(self, name: str) -> Agent | None:
        """Return the agent of a node, if it is on this machine."""
        return self._agents.get(name)

    async def start(self) -> None:
        """Start the root's agent.

        Raises:
            OSError: its socket cannot be had.
        """
        self._nearby.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._begin(
            Agent(
                RootMember(
                    self._root_name,
                    gate=self._connection.get("admission"),
                    place=self._place,
                    belongs=self._belongs,
                ),
                self._gauge(self._root_name),
                self._reporting,
                on_event=self._on_event,
                heaviest=self._heaviest,
                run_id=self._run_id,
                overlay=self._overlay(self._root_name),
                nearby=self._nearby,
                **self._connection,
            )
        )

    async def stop(self) -> None:
        """End all of them, the root last."""
        async with self._changing:
            for name in reversed(list(self._agents)):
                await self._end(name, "the site ends")

    async def restart_root(self) -> None:
        """End the root's agent without a word and start another that knows nothing."""
        async with self._changing:
            task = self._tasks.pop(self._root_name)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.root.stop("restarted")
            await self.start()

    async def follow(self, parents: Mapping[str, str], up: Mapping[str, Role]) -> None:
        """Have agents for exactly these nodes of this machine, hanging as the plan has it.

        Args:
            parents: of the plan; a node that is not in it hangs from the root.
            up: the nodes, the root excepted, with their roles.
        """
        async with self._changing:
            self._parents = dict(parents)
            for name, role in sorted(up.items(), key=lambda each: each[1] is Role.LEAF):
                if name not in self._agents:
                    self._begin(
                        Agent(
                            BranchMember(name, role, ()),
                            self._gauge(name),
                            self._reporting,
                            run_id=self._run_id,
                            overlay=self._overlay(name),
                            nearby=self._nearby,
                        )
                    )
            self.redirect()
            for name in self._gone(up):
                await self._end(name, "switched off")

    def redirect(self) -> None:
        """Send every node where the plan has it; one that cannot go there yet, later."""
        assert isinstance(self.root.member, RootMember)
        for name, place in list(self.registry.nodes.items()):
            parent = self._parents.get(name, self._root_name)
            if place.lost is None and place.parent != parent:
                with suppress(AnabranchError):
                    if self.root.member.can_hang(name, parent):
                        self.root.node.redirect(name, parent, "the plan")

    def _gone(self, up: Collection[str]) -> list[str]:
        return [name for name in self._agents if name not in up and name != self._root_name]

    def _place(self, hello: Hello, _root: RootMember) -> str:
        return self._parents.get(hello.name, self._root_name)

    def _belongs(self, name: str, child: str) -> bool:
        """Say whether a child of the root's may have a node below it.

        Those of this machine are our own, and their news is newer than the plan. Of a guest only
        the plan is believed: else it could claim any node that is away.
        """
        if child in self._agents:
            return True
        seen = set[str]()
        while name in self._parents and name not in seen:
            seen.add(name)
            name = self._parents[name]
            if name == child:
                return True
        return False

    def _begin(self, agent: Agent) -> None:
        name = agent.member.name
        if agent.member.role is not Role.LEAF:
            agent.node.listen_nearby()
        agent.node.start()
        self._agents[name] = agent
        self._tasks[name] = asyncio.create_task(agent.run(), name=f"agent:{name}")

    async def _end(self, name: str, reason: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._agents.pop(name).stop(reason)
