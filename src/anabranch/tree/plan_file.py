"""Descriptions and plans as files, JSON or XML; and whether a plan still fits the network.

Both forms have the same content, and are read through the same models. A plan's file is a
description with each node's parent or the reason why it has none (docs/tree.md).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeVar
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from anabranch.core.errors import UsageError
from anabranch.tree.description import Candidate, CandidateLink, Description, ends
from anabranch.tree.growth import Reason
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Plan
from anabranch.tree.soleil.document import parse
from anabranch.tree.soleil.errors import CodecError

VERSION = 1
MAX_BYTES = 16 * 1024 * 1024
MAX_NODES = 10_000
MAX_LINKS = 100_000

_Name = Annotated[str, Field(max_length=40)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _NodeFile(_Part):
    name: _Name
    role: Role
    available: bool = True


class _PlannedNodeFile(_NodeFile):
    parent: _Name | None = None
    pruned: Reason | None = None


class _LinkFile(_Part):
    between: tuple[_Name, _Name]
    rate_mbit: float = 100.0
    cost: float = 0.0
    redundant: bool = False


class _FanOutFile(_Part):
    root: Annotated[int, Field(ge=1)] | None = None
    relay: Annotated[int, Field(ge=1)] | None = None


class _DescriptionFile(_Part):
    tag: ClassVar[str] = "description"

    version: int = VERSION
    nodes: Annotated[tuple[_NodeFile, ...], Field(max_length=MAX_NODES)]
    links: Annotated[tuple[_LinkFile, ...], Field(max_length=MAX_LINKS)] = ()
    fan_out: _FanOutFile = _FanOutFile()

    @field_validator("version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version != VERSION:
            raise ValueError(f"only version {VERSION} can be read")
        return version

    def description(self) -> Description:
        limits = {Role.ROOT: self.fan_out.root, Role.RELAY: self.fan_out.relay}
        return Description(
            tuple(Candidate(node.name, node.role, node.available) for node in self.nodes),
            tuple(
                CandidateLink(*link.between, link.rate_mbit, link.cost, link.redundant)
                for link in self.links
            ),
            {role: limit for role, limit in limits.items() if limit is not None},
        )


class _PlanFile(_DescriptionFile):
    tag: ClassVar[str] = "plan"

    version: int
    nodes: Annotated[tuple[_PlannedNodeFile, ...], Field(max_length=MAX_NODES)]

    def plan(self) -> Plan:
        return Plan(
            self.description(),
            {node.name: node.parent for node in self.nodes if node.parent is not None},
            {node.name: node.pruned for node in self.nodes if node.pruned is not None},
        )


_File = TypeVar("_File", bound=_DescriptionFile)


def read_description(data: bytes) -> Description:
    """Return the description in a file, JSON or XML.

    Raises:
        UsageError: it is none, is too large, or what it describes cannot be a tree.
    """
    try:
        return _read(data, _DescriptionFile).description()
    except TreeError:
        if _is_plan(data):
            raise TreeError("this is a plan, not what a tree is planned from") from None
        raise


def to_description(content: object) -> Description:
    """Return the description in plain data, such as YAML gives.

    Raises:
        UsageError: it is none, or what it describes cannot be a tree.
    """
    if content is None:
        raise TreeError("there is nothing in it")
    return _checked(lambda: _DescriptionFile.model_validate(content)).description()


def read_plan(data: bytes) -> Plan:
    """Return the plan in a file, JSON or XML.

    Raises:
        UsageError: it is none, is too large, or is no tree by the roles and links that it names.
    """
    return _read(data, _PlanFile).plan()


def _read(data: bytes, form: type[_File]) -> _File:
    if len(data) > MAX_BYTES:
        raise TreeError(f"{len(data)} bytes, more than {MAX_BYTES}")
    if data.lstrip()[:1] == b"<":
        content = _from_xml(data, form.tag)
        return _checked(lambda: form.model_validate(content))
    return _checked(lambda: form.model_validate_json(data))


def _is_plan(data: bytes) -> bool:
    try:
        read_plan(data)
    except UsageError:
        return False
    return True


def _checked(read: Callable[[], _File]) -> _File:
    try:
        return read()
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        said = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "model_type":  # pydantic names our classes, which mean nothing to users
            said = "names with values are wanted here"
        text = f"{place[:100]}: {said[:200]}"
        raise TreeError(text.encode("ascii", "backslashreplace").decode()) from None


def to_json(plan: Plan) -> str:
    """Return a plan as JSON."""
    return json.dumps(_content(plan), indent=1) + "\n"


def to_xml(plan: Plan) -> str:
    """Return a plan as XML: an element for each node and link, attributes as JSON has them."""
    content = _content(plan)
    root = Element(_PlanFile.tag, version=str(VERSION))
    SubElement(root, "fan_out", {k: str(v) for k, v in content["fan_out"].items()})
    for node in content["nodes"]:
        SubElement(root, "node", {name: _text(value) for name, value in node.items()})
    for link in content["links"]:
        one, other = link.pop("between")
        figures = {name: _text(value) for name, value in link.items()}
        SubElement(root, "link", {"one": one, "other": other, **figures})
    indent(root, " ")
    return tostring(root, encoding="unicode") + "\n"


def _content(plan: Plan) -> dict[str, Any]:
    def node_of(node: Candidate) -> dict[str, Any]:
        content = {"name": node.name, "role": node.role, "available": node.available}
        if node.name in plan.parents:
            content["parent"] = plan.parents[node.name]
        if node.name in plan.pruned:
            content["pruned"] = plan.pruned[node.name]
        return content

    return {
        "version": VERSION,
        "fan_out": dict(plan.description.fan_out),
        "nodes": [node_of(node) for node in plan.description.nodes],
        "links": [
            {
                "between": (link.one, link.other),
                "rate_mbit": link.rate_mbit,
                "cost": link.cost,
                "redundant": link.redundant,
            }
            for link in plan.description.links
        ],
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from_xml(data: bytes, tag: str) -> dict[str, Any]:
    try:
        root = parse(data, max_bytes=MAX_BYTES, max_elements=MAX_NODES + MAX_LINKS + 2)
    except CodecError as error:
        raise TreeError(str(error)) from None
    if root.tag != tag:
        raise TreeError(f"the element {root.tag[:40]!r} is no {tag!r}")
    content: dict[str, Any] = {**root.attrib, "nodes": [], "links": []}
    for part in root:
        attributes = dict(part.attrib)
        if part.tag == "node":
            content["nodes"].append(attributes)
        elif part.tag == "link":
            between = (attributes.pop("one", ""), attributes.pop("other", ""))
            content["links"].append({"between": between, **attributes})
        elif part.tag == "fan_out" and "fan_out" not in content:
            content["fan_out"] = attributes
        else:
            raise TreeError(f"an element {part.tag[:40]!r} is not allowed here")
        if len(part):
            raise TreeError(f"the element {part.tag} cannot have others within")
    return content


class Kind(StrEnum):
    """What does not fit."""

    NODE_MISSING = "node-missing"
    NODE_UNAVAILABLE = "node-unavailable"
    ROLE_CHANGED = "role-changed"
    LINK_MISSING = "link-missing"
    LINK_REDUNDANT = "link-redundant"
    RATE_CHANGED = "rate-changed"


@dataclass(frozen=True, slots=True)
class Problem:
    """Where a plan does not fit the network.

    Attributes:
        subject: the node, or the link as ``ONE - OTHER``.
        text: a sentence for people.
        breaks: the tree cannot be as planned; else it only lost a reserve or is shaped otherwise.
    """

    kind: Kind
    subject: str
    text: str
    breaks: bool


def check(plan: Plan, nodes: Iterable[Candidate], links: Iterable[CandidateLink]) -> list[Problem]:
    """Compare the tree and the redundancy links of a plan with what the network has now."""
    problems = []
    live = {node.name: node for node in nodes}
    for planned in plan.tree:
        name, node = planned.name, live.get(planned.name)
        if node is None:
            problems.append(Problem(Kind.NODE_MISSING, name, f"node {name} is missing", True))
        elif node.role is not planned.role:
            text = f"node {name} is a {node.role}, no {planned.role} as planned"
            problems.append(Problem(Kind.ROLE_CHANGED, name, text, True))
        elif not node.available:
            text = f"node {name} is not available"
            problems.append(Problem(Kind.NODE_UNAVAILABLE, name, text, True))
    drawn = {link.ends: link for link in links}
    in_tree = {ends(*pair) for pair in plan.parents.items()}
    planned_links = in_tree.union(link.ends for link in plan.redundancy)
    for link in plan.description.links:
        if link.ends in planned_links:
            problems.extend(_compare(link, drawn.get(link.ends), link.ends in in_tree))
    return problems


def _compare(
    planned: CandidateLink, link: CandidateLink | None, in_tree: bool
) -> Iterator[Problem]:
    what = f"the {'link' if in_tree else 'redundancy link'} {planned}"
    if link is None:
        yield Problem(Kind.LINK_MISSING, str(planned), f"{what} is missing", in_tree)
        return
    if in_tree and link.redundant and not planned.redundant:
        text = f"{what} is for redundancy only"
        yield Problem(Kind.LINK_REDUNDANT, str(planned), text, in_tree)
    if link.rate_mbit != planned.rate_mbit:
        text = f"{what} has {link.rate_mbit:g} Mbit/s, not {planned.rate_mbit:g} as planned"
        yield Problem(Kind.RATE_CHANGED, str(planned), text, False)
