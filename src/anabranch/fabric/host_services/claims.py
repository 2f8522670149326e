"""Who may say that an address is his: the answer to ARP poisoning and stolen MAC addresses."""

import ipaddress
from collections import OrderedDict
from typing import TypeVar

from anabranch.fabric.host_services.acts import HostSeen
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.host_services.view import View
from anabranch.fabric.model import Host, PortRef

T = TypeVar("T")
_MAX_NOTES = 65536


def is_station(mac: str) -> bool:
    """Say whether ``mac`` (canonical) is an address of one station: not of a group, not zero."""
    return not int(mac[:2], 16) & 1 and mac != "00:00:00:00:00:00"


def is_assignable(ipv4: str) -> bool:
    """Say whether a host can have this IPv4 address."""
    address = ipaddress.IPv4Address(ipv4)
    return not (
        address.is_multicast or address.is_unspecified or address.is_loopback or address.is_reserved
    )


class Claims:
    """Judges claims and remembers when each host was heard.

    A MAC address may move between edge ports once it does not answer at the old one, except a VM's
    and the DHCP server's, which are where the site put them. An IPv4 address that a host holds can
    be taken by another only when the holder has been silent for ``settings.ageing`` seconds; a VM's
    or the DHCP server's never.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._heard: OrderedDict[str, float] = OrderedDict()
        self._holders: OrderedDict[str, str] = OrderedDict()

    def accept(self, mac: str, at: PortRef, ipv4: str | None, view: View, now: float) -> bool:
        """Say whether ``mac`` may be at ``at`` and have ``ipv4`` (None: it claims none)."""
        if not is_station(mac) or not view.is_edge(at):
            return False
        known = view.host(mac)
        if known is not None and known.at != at and self._pinned(known):
            return False
        if ipv4 is not None and not self._may_hold(mac, ipv4, view, now):
            return False
        self.hear(mac, now)
        if ipv4 is not None:
            _note(self._holders, ipv4, mac)
        return True

    def is_elsewhere(self, mac: str, at: PortRef, view: View) -> bool:
        """Say whether a host is known at another port that works: nothing is done for it at ``at``.

        Who sees it there says so, and the topology finds out whether it has moved.
        """
        known = view.host(mac)
        if known is None or known.at == at or not view.is_edge(at) or self._pinned(known):
            return False
        old = view.network.ports.get(known.at)
        return old is not None and old.up and at != self._settings.dhcp_server

    def seen(self, mac: str, at: PortRef, ipv4: str | None = None) -> HostSeen:
        """Return the news that a host is at a port."""
        return HostSeen(mac, at, ipv4, certain=at == self._settings.dhcp_server)

    def holder(self, ipv4: str, view: View) -> Host | None:
        """Return the host that has ``ipv4``; after a takeover the network may know of two."""
        latest = view.host(self._holders.get(ipv4))
        if latest is not None and latest.ipv4 == ipv4:
            return latest
        return view.holder(ipv4)

    def hear(self, mac: str, now: float) -> None:
        """Note that ``mac`` has sent something."""
        _note(self._heard, mac, now)

    def _may_hold(self, mac: str, ipv4: str, view: View, now: float) -> bool:
        if not is_assignable(ipv4):
            return False
        holder = self.holder(ipv4, view)
        if holder is None or holder.mac == mac:
            return True
        if self._pinned(holder):
            return False
        if holder.mac not in self._heard:  # its silence counts from now on
            self.hear(holder.mac, now)
        return now - self._heard[holder.mac] > self._settings.ageing

    def _pinned(self, host: Host) -> bool:
        return host.vm or host.at == self._settings.dhcp_server


def _note(notes: OrderedDict[str, T], key: str, value: T) -> None:
    """Make an entry the youngest; the oldest goes where there are too many."""
    notes[key] = value
    notes.move_to_end(key)
    if len(notes) > _MAX_NOTES:
        notes.popitem(last=False)
