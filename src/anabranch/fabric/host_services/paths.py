"""Paths between two hosts, made of reactive rules that end when nobody uses them.

Packets enter a path by its source's port only: the first switch's rule is for that port, the
others' for what comes by a link. So nobody else at these switches can send in the source's name.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from anabranch.fabric.host_services.acts import Act, Install, Remove
from anabranch.fabric.model import Link, Network, PortRef
from anabranch.fabric.openflow.actions import Output
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import FROM_LINK, HOSTS, ORIGIN_MASK
from anabranch.fabric.tables import REACTIVE_COOKIE, Rule

# The links from one switch to another, by name; () for the same one, None if there is no way.
Route = Callable[[Network, str, str], tuple[Link, ...] | None]

MAX_PATHS = 16384
SETTLE = 0.2  # seconds within which switches may still send packets of before the rules


@dataclass(frozen=True, slots=True)
class _Path:
    """What is installed for one match: the hosts at its ends, and where each switch sends it.

    ``source`` is None where only the rest of a path was mended, from an inner switch on.
    """

    source: tuple[str, PortRef] | None
    target: tuple[str, PortRef]
    links: tuple[Link, ...]
    installed: float

    @property
    def hops(self) -> list[PortRef]:
        """The ports that the packets leave by, from the first switch to the last."""
        return [*(link.src for link in self.links), self.target[1]]

    def narrowed(self, match: Match, out: PortRef) -> Match:
        """Return which packets that ``match`` the rule at the switch of hop ``out`` is for."""
        if self.source is not None and out == self.hops[0]:
            return replace(match, in_port=self.source[1].port_no)
        return replace(match, metadata=(FROM_LINK, ORIGIN_MASK))

    def rules(self, match: Match) -> dict[tuple[str, Match], None]:
        """Return the switches and matches of its rules, in order."""
        return {(out.switch, self.narrowed(match, out)): None for out in self.hops}


class ReactivePaths:
    """Makes paths and remembers them, so that those a change breaks can be removed.

    Beyond 16,384 the paths used least recently, as far as is known here, are removed.
    """

    def __init__(self, route: Route, idle_timeout: int) -> None:
        self._route = route
        self._idle_timeout = idle_timeout
        self._paths: OrderedDict[Match, _Path] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paths)

    def connect(
        self,
        there: Match,
        back: Match,
        source: tuple[str, PortRef],
        target: tuple[str, PortRef],
        priority: int,
        network: Network,
        now: float,
    ) -> list[Act] | None:
        """Return what carries ``there`` from host ``source`` to host ``target`` and ``back`` again.

        Rules come downstream first as seen from the source. None: there is no way. Nothing: it was
        installed a moment ago.

        Args:
            there, back: header fields, without ``in_port`` and ``metadata``.
            source, target: MAC address and edge port of each.
            now: monotonic seconds.
        """
        links = self._route(network, source[1].switch, target[1].switch)
        if links is None:
            return None
        forward = _Path(source, target, links, now)
        if self._is_fresh(there, forward) and back in self._paths:
            return []
        backward = _Path(target, source, tuple(link.reverse for link in reversed(links)), now)
        acts = [*self._remember(there, forward), *self._remember(back, backward)]
        for out, home in zip(reversed(forward.hops), backward.hops, strict=True):
            rules = (
                self._rule(forward, there, out, priority),
                self._rule(backward, back, home, priority),
            )
            acts.append(Install(out.switch, rules))
        return acts

    def mend(
        self,
        match: Match,
        switch: str,
        target: tuple[str, PortRef],
        priority: int,
        network: Network,
        now: float,
    ) -> list[Act] | None:
        """Return what carries ``match`` on from an inner switch; as :meth:`connect`, one way."""
        links = self._route(network, switch, target[1].switch)
        if links is None:
            return None
        known = self._paths.get(match)
        rest = _Path(None, target, links, now)
        if known is None:
            acts = self._remember(match, rest)
        else:
            acts = []
            extra = tuple(link for link in links if link not in known.links)
            self._paths[match] = replace(known, links=known.links + extra)
        return acts + [
            Install(out.switch, (self._rule(rest, match, out, priority),))
            for out in reversed(rest.hops)
        ]

    def ended(self, switch: str, match: Match) -> None:
        """Take note that a switch's rule has ended: at its first switch, the path is idle."""
        bare = replace(match, in_port=None, metadata=None)
        path = self._paths.get(bare)
        if path is not None and path.source is not None:
            at = path.source[1]
            if (at.switch, at.port_no) == (switch, match.in_port):
                del self._paths[bare]

    def invalidate(self, network: Network) -> list[tuple[str, Match]]:
        """Forget the paths that ``network`` no longer has; return their rules, by switch."""
        stale = [match for match, path in self._paths.items() if not self._is_sound(path, network)]
        removed = []
        for match in stale:
            path = self._paths.pop(match)
            removed += [
                (switch, match) for switch in dict.fromkeys(hop.switch for hop in path.hops)
            ]
        return removed

    def _is_fresh(self, match: Match, path: _Path) -> bool:
        known = self._paths.get(match)
        return (
            known is not None
            and path.installed - known.installed < SETTLE
            and (known.source, known.target, known.links) == (path.source, path.target, path.links)
        )

    def _is_sound(self, path: _Path, network: Network) -> bool:
        for mac, at in filter(None, (path.source, path.target)):
            host = network.hosts.get(mac)
            if host is None or host.at != at or at.switch not in network.switches:
                return False
        if all(link in network.links and network.links[link].up for link in path.links):
            return True
        # It may use links of last resort, as long as there is no better way.
        first = path.links[0].src.switch
        return self._route(network, first, path.target[1].switch) == path.links

    def _remember(self, match: Match, path: _Path) -> list[Act]:
        """Return what removes rules that no new rule of the same path replaces."""
        removed: list[Act] = []
        older = self._paths.pop(match, None)
        self._paths[match] = path
        if older is not None:
            kept = path.rules(match)
            removed += [Remove(*rule) for rule in older.rules(match) if rule not in kept]
        if len(self._paths) > MAX_PATHS:
            least, gone = self._paths.popitem(last=False)
            removed += [Remove(hop.switch, least) for hop in gone.hops]
        return removed

    def _rule(self, path: _Path, match: Match, out: PortRef, priority: int) -> Rule:
        narrowed = path.narrowed(match, out)
        return Rule(
            HOSTS,
            priority,
            narrowed,
            (Output(out.port_no),),
            REACTIVE_COOKIE,
            idle_timeout=self._idle_timeout,
            notify=narrowed.in_port is not None,
        )
