"""What a site looks like from outside, as plain data."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import anabranch
from anabranch.channels.seats import PlainSeat, Seat, Seats
from anabranch.host.process import Child
from anabranch.media.leaf import LeafServer
from anabranch.site.switched import SwitchedUnderlay
from anabranch.site.underlay import DirectUnderlay

if TYPE_CHECKING:
    from anabranch.site.site import Site


async def overview(site: "Site") -> dict[str, Any]:
    """Return the whole site's state, its channels excepted."""
    return {
        "name": site.settings.name,
        "version": anabranch.__version__,
        "carriage": "switches" if site.settings.switches else "direct",
        "uptime_s": time.time() - site.started,
        "pid": os.getpid(),
        "nodes": await site.nodes.report(),
        "seats": len(site.seats),
        "children": children(site),
        "controller": site.underlay.controller,
        "repairs": await repairs(site.underlay),
        "notes": site.notes,
    }


def children(site: "Site") -> dict[str, dict[str, Any]]:
    """Return process number and restarts of every supervised child, by name."""
    found: list[Child] = list(site.underlay.children().values())
    found += [leaf.child for leaf in site.leaves if leaf.child is not None]
    if site.publishers.available:
        found.append(site.publishers.server.child)
    found += site.services.children().values()
    if site.whip.child is not None:
        found.append(site.whip.child)
    report: dict[str, dict[str, Any]] = {
        child.spec.name: {"pid": child.pid, "restarts": child.restarts} for child in found
    }
    for channel in site.channels:
        encoder, ingest = channel.encoder, channel.ingest
        lives = encoder.state.generation
        report[encoder.name] = {"pid": encoder.pid, "restarts": max(0, lives - 1)}
        report[ingest.name] = {"pid": ingest.pid, "restarts": ingest.stats.restarts}
    return report


async def repairs(underlay: SwitchedUnderlay | DirectUnderlay) -> dict[str, dict[str, int]]:
    """Return what was lost in the tree and came after all, by node; empty without ring servers."""
    if not isinstance(underlay, SwitchedUnderlay) or underlay.rings is None:
        return {}
    figures = await underlay.rings.figures()
    return {node: asdict(found) for node, found in sorted(figures.items())}


async def seat_reports(
    seats: Iterable[Seat], leaves: Mapping[str, LeafServer]
) -> list[dict[str, Any]]:
    """Return every seat with its viewer's figures, without its identifier."""

    async def report(seat: Seat) -> dict[str, Any]:
        leaf = leaves.get(seat.leaf)
        figures = await leaf.statistics(seat.viewing) if leaf is not None else None
        return {
            **browser_seat(seat),
            "bytes_sent": figures.bytes_sent if figures else None,
            "packets_lost": figures.packets_lost if figures else None,
            "nacks": figures.nacks if figures else None,
            "jitter_ms": figures.jitter_ms if figures else None,
            "rtt_ms": figures.rtt_ms if figures else None,
        }

    return list(await asyncio.gather(*(report(seat) for seat in seats)))


def browser_seat(seat: Seat) -> dict[str, Any]:
    """Return a browser's seat without its viewer's figures and its identifier."""
    return {
        "kind": seat.kind,
        "channel": seat.channel,
        "rendition": seat.rendition,
        "leaf": seat.leaf,
        "state": seat.state,
        "seconds": time.time() - seat.since,
    }


def plain_seat(seat: PlainSeat) -> dict[str, Any]:
    """Return a plain seat as whoever knows its identifier may see it."""
    scheme = "udp" if seat.form == "ts" else "rtp"
    host = f"[{seat.address}]" if ":" in seat.address else seat.address
    return {
        "id": seat.id,
        "kind": seat.kind,
        "channel": seat.channel,
        "rendition": seat.rendition,
        "leaf": seat.leaf,
        "state": "watching",
        "seconds": time.time() - seat.since,
        "to": f"{scheme}://{host}:{seat.port}",
        "format": seat.form,
        "ttl_s": seat.ttl_s,
    }


def plain_seats(seats: Seats) -> list[dict[str, Any]]:
    """Return every plain seat, the oldest first."""
    return [plain_seat(seat) for seat in seats.plain]
