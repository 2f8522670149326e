"""Flows are told apart by what they match: no two may look alike where both may be."""

from collections.abc import Hashable, Iterable

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.flow_rules import carried
from anabranch.fabric.intents import Flow
from anabranch.fabric.overlaps import Overlaps


class Apart:
    """The flows that are accepted, none of which is mistaken for another."""

    def __init__(self) -> None:
        self._overlaps = Overlaps()

    def change(self, old: Iterable[Flow], new: Iterable[Flow]) -> None:
        """Accept ``new`` flows in place of ``old`` ones.

        Raises:
            MisuseError: two flows could not be told apart; nothing changed.
        """
        old = list(old)
        for flow in old:
            self._remove(flow)
        added: list[Flow] = []
        try:
            for flow in new:
                self._check(flow)
                self._add(flow)
                added.append(flow)
        except MisuseError:
            for flow in added:
                self._remove(flow)
            for flow in old:
                self._add(flow)
            raise

    def _check(self, flow: Flow) -> None:
        match = carried(flow.match)
        for scope in _scopes(flow):
            rival = self._overlaps.rival(scope, match)
            if rival is not None:
                raise MisuseError(
                    f"flows {rival} and {flow.name} match the same packets with the same "
                    "priority; nothing would tell them apart"
                )

    def _add(self, flow: Flow) -> None:
        match = carried(flow.match)
        for scope in _scopes(flow):
            self._overlaps.add(scope, flow.name, match)

    def _remove(self, flow: Flow) -> None:
        match = carried(flow.match)
        for scope in _scopes(flow):
            self._overlaps.remove(scope, flow.name, match)


def _scopes(flow: Flow) -> list[Hashable]:
    """Return where no other flow of its priority may look like this one.

    That is every port that it enters by, and all links, if it uses any. Whether two flows really
    meet on a link depends on the network, which changes after they were accepted.
    """
    if not flow.egress:
        return []
    home = flow.ingress.switch
    scopes: list[Hashable] = [
        (port, flow.priority)
        for port in (flow.ingress, *(service.back for service in flow.through))
    ]
    switches = {egress.at.switch for egress in flow.egress}
    for service in flow.through:
        switches |= {service.to.switch, service.back.switch}
    if switches != {home}:
        scopes.append(("links", flow.priority))
    return scopes
