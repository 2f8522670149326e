"""The rules of taps: all in SERVICES, where a packet meets the one tap of the highest priority."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.flow_rules import Part, cookie_of
from anabranch.fabric.intents import Tap
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.prerequisites import fault_of
from anabranch.fabric.overlaps import Overlaps
from anabranch.fabric.pipeline import FLOWS, ORIGIN_MASK, SERVED_MASK, SERVICES, TAP_BASE
from anabranch.fabric.tables import Rule

_WHOLE = 0xFFFF
_ANYWHERE = ""


def check(taps: Iterable[Tap]) -> None:
    """Say which taps cannot be.

    Raises:
        MisuseError: naming the tap, or two that overlap at one switch with one priority.
    """
    taps = list(taps)
    named = {switch for tap in taps for switch in tap.switches} | {_ANYWHERE}
    known = Overlaps()
    for tap in taps:
        if tap.match.metadata is not None or tap.match.other:
            raise MisuseError(f"tap {tap.name}: metadata is the fabric's own")
        if (fault := fault_of(tap.match)) is not None:
            raise MisuseError(f"tap {tap.name}: {fault}")
        if not 1 <= tap.priority <= 1000:
            raise MisuseError(f"tap {tap.name}: priority {tap.priority} is not of 1 to 1000")
        if tap.to is not None:
            try:
                Output(tap.to)
            except MisuseError as problem:
                raise MisuseError(f"tap {tap.name}: {problem}") from None
        for switch in sorted(tap.switches or named):
            scope = switch, tap.priority
            if (rival := known.rival(scope, tap.match)) is not None:
                raise MisuseError(
                    f"taps {rival} and {tap.name} match the same packets with the same priority"
                )
            known.add(scope, tap.name, tap.match)


def parts(
    taps: Iterable[Tap], switches: Iterable[str], shut: Collection[PortRef] = ()
) -> Mapping[str, Part]:
    """Return the rules of every switch that has any.

    Args:
        shut: ports that nothing may leave by. What is diverted there is dropped.
    """
    rules: dict[str, list[Rule]] = {}
    known = frozenset(switches)
    for tap in sorted(taps, key=lambda tap: tap.name):
        rule = _rule(tap)
        nowhere = replace(rule, actions=())
        for switch in tap.switches & known if tap.switches else known:
            open_ = tap.to is None or PortRef(switch, tap.to) not in shut
            rules.setdefault(switch, []).append(rule if open_ else nowhere)
    return {switch: Part(tuple(found)) for switch, found in rules.items()}


def _rule(tap: Tap) -> Rule:
    # What comes back from a service was met when it went there.
    mask = SERVED_MASK if tap.switches else SERVED_MASK | ORIGIN_MASK
    match: Match = replace(tap.match, metadata=(0, mask))
    to = Output(PORT_CONTROLLER, _WHOLE) if tap.to is None else Output(tap.to)
    return Rule(
        SERVICES,
        TAP_BASE + tap.priority,
        match,
        (to,),
        cookie_of(tap.name),
        goto_table=None if tap.divert else FLOWS,
    )
