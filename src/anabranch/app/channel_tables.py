"""Channels on the terminal."""

import json
import time
from typing import Any

from rich.markup import escape
from rich.table import Table

from anabranch.app.config import Config
from anabranch.app.terminal import out

_COLOURS = {"live": "green", "slate": "yellow", "starting": "yellow", "failed": "red"}


def print_channels(channels: list[dict[str, Any]]) -> None:
    """Print a line a channel."""
    table = Table("Channel", "Title", "State", "Viewers", "Publisher", "", box=None)
    for channel in channels:
        colour = _COLOURS[channel["state"]]
        table.add_row(
            channel["name"],
            escape(channel["title"]),
            f"[{colour}]{channel['state']}[/{colour}]",
            str(channel["viewers"]),
            escape(_in_short(channel["publisher"])),
            escape(channel["detail"] or ""),
        )
    hint = "There is no channel: anabranch channel add NAME --from SOURCE"
    out.print(table if channels else hint)


def print_channel(config: Config, channel: dict[str, Any], *, as_json: bool) -> None:
    """Print all about a channel."""
    if as_json:
        out.print_json(json.dumps(channel))
        return
    rows = {
        "channel": channel["name"],
        "title": channel["title"],
        "state": " - ".join(filter(None, (channel["state"], channel["detail"]))),
        "source": channel["source"],
        "for": channel["visibility"] + (f", of {channel['owner']}" if channel["owner"] else ""),
        **_in_full(channel["publisher"]),
        "watch": f"{config.local_url}/watch/{channel['name']}",
        "WHEP": f"{config.local_url}/whep/{channel['name']}",
        **({"key": channel["key"]} if channel["key"] else {}),
        **channel["publish"],
    }
    width = max(map(len, rows))
    for label, value in rows.items():
        out.print(f"{label:>{width}}  {escape(value)}", soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a time in words, ``2 h 5 min``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _in_short(publisher: dict[str, Any] | None) -> str:
    if publisher is None:
        return ""
    return ", ".join((publisher["way"], *_rates(publisher)))


def _in_full(publisher: dict[str, Any] | None) -> dict[str, str]:
    """Return what feeds a channel as rows: who, how well it arrives, and what it is."""
    if publisher is None:
        return {}
    address = publisher["address"]
    since = f"{publisher['way']} for {duration(max(0.0, time.time() - publisher['since']))}"
    rows = {"publisher": f"{since} from {address}" if address else since}
    arrival = list(_rates(publisher))
    for name, label, unit in (
        ("jitter_ms", "jitter", " ms"),
        ("rtt_ms", "round trip", " ms"),
        ("packets_repaired", "repaired", ""),
        ("plis", "key frames asked for", ""),
        ("reconnects", "reconnects", ""),
    ):
        if publisher[name] is not None and (publisher[name] or unit):
            arrival.append(f"{label} {publisher[name]:.0f}{unit}")
    if arrival:
        rows["arrival"] = ", ".join(arrival)
    if picture := _picture(publisher):
        rows["picture"] = picture
    return rows


def _rates(publisher: dict[str, Any]) -> list[str]:
    kbps, loss = publisher["bitrate_kbps"], publisher["loss"]
    return [
        *([f"{kbps:.0f} kbit/s"] if kbps is not None else []),
        *([f"{loss:.1%} lost"] if loss is not None else []),
    ]


def _picture(publisher: dict[str, Any]) -> str:
    size = f"{publisher['width']}x{publisher['height']}" if publisher["width"] else None
    rate = f"{publisher['framerate']:g} frames/s" if publisher["framerate"] else None
    return " ".join(filter(None, (publisher["codec"], size, rate)))
