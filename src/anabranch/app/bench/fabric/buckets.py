"""``bucket_move_ms``: a receiver changes from one channel to another, of 500 receivers each.

Two ALL groups of 500 buckets at one Open vSwitch; all but one of each lead to a port where nobody
listens.
The time is from the call of ``Controller.apply`` to the first packet of the new channel at the
receiver; that there is one packet every 2.5 ms is in it. Around each move the new channel carries
400 packets/s, which are 200,000 copies/s.
"""

import asyncio
import time

from anabranch.app.bench.fabric.hosts import target_mac
from anabranch.app.bench.fabric.lab import Shape, connected, lab
from anabranch.app.bench.fabric.traffic import Record, traffic
from anabranch.app.bench.report import Result, sampled
from anabranch.core.errors import UnavailableError
from anabranch.fabric.controller import Controller
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.actions import Group, Output, SetField
from anabranch.fabric.openflow.messages import Bucket, GroupType
from anabranch.fabric.openflow.oxm import ETH_IPV4, Match
from anabranch.fabric.tables import INTENT_COOKIE, GroupSpec, Rule, Tables

BUCKETS = 500
_CHANNELS = 2
_PPS = 400
_LEAD_S = 0.03
_PAUSE_S = 0.15
_IN, _OUT, _ELSEWHERE = 1, 2, 3
_SHAPE = Shape(
    ("s1",),
    hosts={
        "source": PortRef("s1", _IN),
        "mover": PortRef("s1", _OUT),
        "others": PortRef("s1", _ELSEWHERE),
    },
)


def measure(samples: int, buckets: int = BUCKETS, pps: int = _PPS) -> list[Result]:
    """Move ``samples`` times, in groups of ``buckets`` that get ``pps`` packets/s.

    Raises:
        UnavailableError: this is not root, or the receiver gets nothing.
    """
    moves = asyncio.run(_measure(samples, buckets, pps))
    return [sampled("bucket_move_ms", "ms", moves, target="p95 <= 10", digits=2)]


async def _measure(samples: int, buckets: int, pps: int) -> list[float]:
    async with lab(_SHAPE) as made:
        controller = Controller(lambda _: None)
        try:
            await controller.listen_unix(made.controller_path("s1"), "s1")
            await connected(controller, ("s1",))
            await controller.apply({"s1": _tables(0, buckets)})
            sender, receiver = made.namespace("source"), made.namespace("mover")
            with traffic(_CHANNELS, pps, sender, receiver) as packets:
                packets.pause()
                moved = []
                for number in range(1, samples + 1):
                    wanted = {"s1": _tables(number % _CHANNELS, buckets)}
                    packets.choose(number % _CHANNELS)
                    await asyncio.sleep(_LEAD_S)
                    moved.append(time.time())
                    await controller.apply(wanted)
                    await asyncio.sleep(_LEAD_S)
                    packets.pause()
                    await asyncio.sleep(_PAUSE_S)
                record = await asyncio.to_thread(packets.stop)
        finally:
            await controller.close()
    return _delays(record, moved)


def _delays(record: Record, moved: list[float]) -> list[float]:
    delays = []
    for number, when in enumerate(moved, 1):
        channel = number % _CHANNELS
        came = [a.arrived for a in record.arrivals if a.flow == channel and a.arrived >= when]
        first = min(came, default=None)
        if first is None:
            raise UnavailableError("the receiver does not get the channel it has moved to")
        delays.append(1000 * (first - when))
    return delays


def _tables(channel: int, buckets: int = BUCKETS) -> Tables:
    groups = frozenset(
        _group(number, buckets, with_mover=number == channel) for number in range(_CHANNELS)
    )
    rules = frozenset(
        Rule(
            0,
            10,
            Match(in_port=_IN, eth_type=ETH_IPV4, eth_dst=target_mac(number).hex(":")),
            (Group(number + 1),),
            INTENT_COOKIE,
        )
        for number in range(_CHANNELS)
    )
    return Tables(rules=rules, groups=groups)


def _group(channel: int, buckets: int, *, with_mover: bool) -> GroupSpec:
    others = [_bucket(number, _ELSEWHERE) for number in range(1, buckets)]
    mover = [_bucket(0, _OUT)] if with_mover else [_bucket(buckets, _ELSEWHERE)]
    return GroupSpec(channel + 1, GroupType.ALL, (*others, *mover))


def _bucket(number: int, port_no: int) -> Bucket:
    high, low = divmod(number, 256)
    return Bucket(
        (
            SetField("eth_dst", f"02:00:00:03:{high:02x}:{low:02x}"),
            SetField("ipv4_dst", f"10.3.{high}.{low}"),
            SetField("udp_dst", 6000),
            Output(port_no),
        )
    )
