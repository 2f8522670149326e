"""Figures of a pipeline, as its worker tells them once a second."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from anabranch.tree.soleil.messages import PipelineState


@dataclass(frozen=True, slots=True)
class Received:
    """What a source got, over all its senders.

    Attributes:
        octets: of RTP payload.
        jitter_ms: between arrivals, the worst sender's (RFC 3550, section 6.4.1).
    """

    packets: int
    octets: int
    lost: int
    jitter_ms: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What an outlet sent, over all its destinations; ``octets`` of RTP, with its header."""

    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """A pipeline now; counters begin at 0 in every life of its worker.

    Attributes:
        lives: how often it was started, restarts included.
        sources: by stream.
        outlets: by name.
    """

    state: PipelineState
    lives: int = 0
    sources: Mapping[str, Received] = field(default_factory=dict)
    outlets: Mapping[str, Sent] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Playing:
    """The worker's pipeline runs."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker's pipeline broke; the worker ends."""

    detail: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The worker's counters."""

    sources: Mapping[str, Received]
    outlets: Mapping[str, Sent]


def read_event(line: str) -> Playing | Broken | Figures | None:
    """Return what the worker says; None for what it does not: it may have been taken over."""
    try:
        said = json.loads(line)
        match said["event"]:
            case "playing":
                return Playing()
            case "error":
                return Broken(str(said["detail"])[:300])
            case "stats":
                return Figures(
                    {name: _received(*numbers) for name, numbers in said["sources"].items()},
                    {name: Sent(*map(_count, each)) for name, each in said["outlets"].items()},
                )
            case _:
                return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _received(packets: Any, octets: Any, lost: Any, jitter: Any) -> Received:
    if type(jitter) not in (int, float) or not (isfinite(jitter) and jitter >= 0):
        raise ValueError("no jitter")
    return Received(_count(packets), _count(octets), _count(lost), float(jitter))


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**63:
        raise ValueError("no count")
    return number
