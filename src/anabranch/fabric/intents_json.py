"""What is wanted as JSON: between a director and its controllers, and in an operator's file.

A number is a number: ``true`` is none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from anabranch.core.errors import AnabranchError
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import STRICT, Intents
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.pathlogic.logic import Path

_ADAPTER = TypeAdapter(Intents)


@dataclass(frozen=True, slots=True)
class DeclaredLink:
    """One direction of a link that an operator knows of; see :class:`LinkInfo`."""

    __pydantic_config__ = STRICT

    src: PortRef
    dst: PortRef
    capacity_mbit: float | None = None
    redundant: bool = False

    @property
    def name(self) -> str:
        return f"{self.src}>{self.dst}"

    @property
    def link(self) -> Link:
        return Link(self.src, self.dst)

    @property
    def info(self) -> LinkInfo:
        return LinkInfo(capacity_mbit=self.capacity_mbit, redundant=self.redundant)


def declared_links(links: Mapping[Link, LinkInfo]) -> tuple[DeclaredLink, ...]:
    """Return links as they are written down."""
    return tuple(
        DeclaredLink(link.src, link.dst, info.capacity_mbit, info.redundant)
        for link, info in sorted(links.items(), key=lambda item: item[0])
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything that is wanted of a fabric.

    Attributes:
        intents: by owner.
        paths: past virtual machines.
        links: declared by an operator, besides those of the site or the file.
    """

    intents: Mapping[str, Intents] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    links: tuple[DeclaredLink, ...] = ()

    __pydantic_config__ = STRICT


_WANTED = TypeAdapter(Wanted)


def dumps(intents: Intents) -> bytes:
    """Return intents as JSON in UTF-8."""
    return _ADAPTER.dump_json(intents, exclude_none=True, exclude={"names"})


def loads(data: bytes) -> Intents:
    """Return the intents that ``data`` is; the inverse of :func:`dumps`.

    Raises:
        MisuseError: it is none; the message names the place.
    """
    try:
        return _ADAPTER.validate_json(data, strict=True)
    except (ValidationError, AnabranchError) as error:
        raise _misuse(error) from None


def from_plain(data: Any) -> Intents:
    """Return intents from what YAML or JSON gave. Raises as :func:`loads`."""
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise MisuseError(f"the intents are wrong: {error}") from None
    return loads(text.encode())


def dump_wanted(wanted: Wanted) -> bytes:
    """Return everything wanted as JSON in UTF-8."""
    without = {"intents": {"__all__": {"names"}}}
    return _WANTED.dump_json(wanted, exclude_none=True, exclude=without)


def load_wanted(data: bytes) -> Wanted:
    """Return what ``data`` is; the inverse of :func:`dump_wanted`. Raises as :func:`loads`."""
    try:
        return _WANTED.validate_json(data, strict=True)
    except (ValidationError, AnabranchError) as error:
        raise _misuse(error, "wishes") from None


def _misuse(error: ValidationError | AnabranchError, what: str = "intents") -> MisuseError:
    if isinstance(error, AnabranchError):
        return MisuseError(f"the {what} are wrong: {error}")
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"])) or "the whole"
    return MisuseError(f"the {what} are wrong at {where[:200]}: {fault['msg'][:200]}")
