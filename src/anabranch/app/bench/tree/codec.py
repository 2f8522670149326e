"""``soleil_codec_msgs_per_s``: messages written and read again by one core.

A fifth each of HELLO, STATS with two containers, PING, REQFULLSTATS and FULLSTATS. The peer is
ElementTree alone on the same documents, elements to text and back: nothing limited, checked or
made into records.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from xml.etree import ElementTree

from anabranch.app.bench.report import Peer, Result, percentiles, sampled
from anabranch.tree.model import Role
from anabranch.tree.soleil.codec import decode, encode
from anabranch.tree.soleil.messages import (
    ROOT,
    Body,
    Endpoint,
    FullStats,
    Hello,
    Message,
    Ping,
    ReqFullStats,
    Stats,
    StreamStats,
)

_ROUNDS = 1000
_BARE = "ElementTree alone, nothing checked"
_AT = Endpoint("192.0.2.17", 14982)
_FIGURES = {"cpu": 12.5, "injitter": 4.25, "cumpktlost": 12.0}

Item = TypeVar("Item")


def messages() -> list[Message]:
    """Return the mix that is measured."""
    containers = tuple(
        StreamStats(stream, 1795243101, 1795243111, 3, _FIGURES, 250.0)
        for stream in ("news.720p", "news.360p")
    )
    bodies: list[Body] = [
        Hello("leaf-7", Role.LEAF, _AT, _AT, ("1234567",), "c2VjcmV0"),
        Stats(containers, 31),
        Ping("9f2c"),
        ReqFullStats("news.720p"),
        FullStats(containers[:1], "news.720p", 1795243111),
    ]
    return [
        Message(body, 1795243111500, ROOT, "leaf-7", f"c2VjcmV0-{n}")
        for n, body in enumerate(bodies)
    ]


def measure(samples: int) -> list[Result]:
    """Write and read the mix 1,000 times for each of ``samples``, peer and ours by turns."""
    mix = messages()
    documents = [encode(each) for each in mix]
    elements = [ElementTree.fromstring(each) for each in documents]  # noqa: S314  # our own
    ours_out, ours_in, bare_out, bare_in = (list[float]() for _ in range(4))
    for _ in range(samples):
        ours_out.append(_seconds(encode, mix))
        bare_out.append(_seconds(ElementTree.tostring, elements))
        ours_in.append(_seconds(decode, documents))
        bare_in.append(_seconds(ElementTree.fromstring, documents))
    ours = [sum(both) for both in zip(ours_out, ours_in, strict=True)]
    bare = [sum(both) for both in zip(bare_out, bare_in, strict=True)]
    return [
        _rate("soleil_codec_msgs_per_s", ours, bare, target="p50 >= 20000"),
        _rate("soleil_encode_msgs_per_s", ours_out, bare_out),
        _rate("soleil_decode_msgs_per_s", ours_in, bare_in),
    ]


def _seconds(function: Callable[[Item], object], items: Sequence[Item]) -> float:
    """Return the processor's time for one item."""
    began = time.process_time()
    for _ in range(_ROUNDS):
        for item in items:
            function(item)
    return (time.process_time() - began) / (_ROUNDS * len(items))


def _rate(
    metric: str, ours: Sequence[float], bare: Sequence[float], *, target: str | None = None
) -> Result:
    peer = Peer(_BARE, round(percentiles([1 / each for each in bare])[0]))
    rates = [1 / each for each in ours]
    return sampled(metric, "messages/s", rates, target=target, peer=peer, digits=0)
