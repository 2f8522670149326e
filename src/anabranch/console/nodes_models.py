"""The JSON of ``/api/nodes`` and ``/api/tree``."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class NodeOut(BaseModel):
    """A node of the site, up or in the pool."""

    name: str
    role: str
    state: Literal["up", "idle", "starting", "draining", "down"] = Field(
        description="idle: in the pool; down: meant to be up, but dead"
    )
    parent: str | None = Field(description="None: it is the root, or in no tree")
    connected: bool
    viewers: int | None = Field(description="of a leaf")
    capacity: int | None = Field(description="viewers of a leaf at most; None: any number")
    address: str | None


class StartIn(BaseModel):
    """How a node is to be started."""

    model_config = ConfigDict(extra="forbid")

    below: Annotated[
        str | None,
        Field(max_length=40, description="a relay takes half of this node's children"),
    ] = None


class StopIn(BaseModel):
    """How a node is to be switched off."""

    model_config = ConfigDict(extra="forbid")

    patience_s: Annotated[
        float, Field(ge=0, le=300, description="seconds that viewers have to leave by themselves")
    ] = 10.0


class BranchOut(BaseModel):
    """A node of the tree and the link to its parent."""

    name: str
    role: str
    parent: str | None
    rate_mbit: float | None


class ReserveOut(BaseModel):
    """A link between two nodes that is not part of the tree."""

    between: tuple[str, str]
    rate_mbit: float


class TreeOut(BaseModel):
    """The tree, root first, and what is beside it."""

    nodes: list[BranchOut]
    reserve: list[ReserveOut]
    pruned: dict[str, str] = Field(description="nodes that are not in the tree, and why")
