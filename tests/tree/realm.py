"""A site on loopback: its authority, its root, and nodes with certificates or tokens."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from anabranch.tree.admission import Admission
from anabranch.tree.branch import BranchMember
from anabranch.tree.certificates import Authority, Credentials
from anabranch.tree.events import NodeEvent
from anabranch.tree.model import Role
from anabranch.tree.root import Placement, RootMember, stay
from anabranch.tree.runtime import TreeNode
from anabranch.tree.soleil.messages import Endpoint
from anabranch.tree.transport.dialler import Nearby, Way


class Node:
    """A running node and what it told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[NodeEvent] = []
        self.node: TreeNode
        self.port = 0

    def told(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def parent(self) -> str | None:
        return self.node.member.parent


class Realm:
    """Everything of one site."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = Authority.open(path / "authority.pem")
        self.admission = Admission(self.authority, path / "nodes.json")
        self.running: list[Node] = []
        self.root_at = Endpoint("127.0.0.1", 0)

    def credentials(self, name: str) -> Credentials:
        return Credentials(self.path / name)

    def certify(self, name: str, role: Role) -> Credentials:
        credentials = self.credentials(name)
        self.authority.provide(credentials, name, role)
        if role is not Role.ROOT:
            self.admission.adopt(name, role)
        return credentials

    async def root(
        self,
        *,
        port: int = 0,
        place: Placement = stay,
        timing: dict[str, float] | None = None,
        limits: dict[str, int] | None = None,
        nearby: Nearby | None = None,
        ways: Iterable[Way] = (),
        grace: float = 15.0,
    ) -> Node:
        made = Node("root")
        member = RootMember("root", gate=self.admission, place=place, grace=grace)
        made.node = TreeNode(
            member,
            made.events.append,
            credentials=self.certify("root", Role.ROOT),
            admission=self.admission,
            nearby=nearby,
            ways=ways,
            timing=timing,
            limits=limits,
        )
        made.port = made.node.listen("127.0.0.1", port)
        if nearby is not None:
            made.node.listen_nearby()
        member.server = self.root_at = Endpoint("127.0.0.1", made.port)
        made.node.start()
        self.running.append(made)
        return made

    async def branch(
        self,
        name: str,
        role: Role,
        *,
        credentials: Credentials | None = None,
        timing: dict[str, float] | None = None,
        nearby: Nearby | None = None,
        ways: Iterable[Way] = (),
    ) -> Node:
        made = Node(name)
        member = BranchMember(name, role, (self.root_at,))
        if nearby is None:
            credentials = credentials or self.certify(name, role)
        else:
            self.admission.adopt(name, role)
        made.node = TreeNode(
            member,
            made.events.append,
            credentials=credentials,
            timing=timing,
            nearby=nearby,
            ways=ways,
        )
        if role is Role.RELAY:
            if nearby is not None:
                made.node.listen_nearby()
            else:
                made.port = made.node.listen("127.0.0.1", 0)
                member.server = Endpoint("127.0.0.1", made.port)
        made.node.start()
        self.running.append(made)
        return made

    async def crash(self, node: Node) -> None:
        """End it as the kernel would: connections and all, without a word."""
        self.running.remove(node)
        channels = list(node.node._numbers)
        node.node._numbers.clear()
        for channel in channels:
            channel.close("crashed", at_once=True)
            await channel.closed
        await node.node.stop()

    async def end(self, node: Node) -> None:
        self.running.remove(node)
        await node.node.stop()


@asynccontextmanager
async def realm(path: Path) -> AsyncIterator[Realm]:
    made = Realm(path)
    try:
        yield made
    finally:
        for node in reversed(made.running):
            await node.node.stop()
