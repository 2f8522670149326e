"""What a callback is told: an event as JSON of ours, or as the form of the seed's figure 7.7.

The seed (section 6.4.2) posts ``data={"type":...,"op":...}``: ``type`` is ``switch``, ``link`` or
``VM``, ``op`` is ``ADD`` or ``DELETE``. Our JSON says the same and more, about every event.
"""

import json
from collections.abc import Collection, Mapping
from enum import StrEnum
from urllib.parse import quote

from anabranch.core.events import Event

# Whatever else tells of these (link.added, vm.moved, ...) comes beside one of them, never alone.
_VERBS = {
    "switch.connected": ("switch", "ADD"),
    "switch.lost": ("switch", "DELETE"),
    "link.up": ("link", "ADD"),
    "link.down": ("link", "DELETE"),
    "vm.added": ("VM", "ADD"),
    "vm.removed": ("VM", "DELETE"),
}
# The JSON stays as readable as in the figure; only what would end or alter the field is escaped.
_UNESCAPED = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in "%&+")


class Encoding(StrEnum):
    """How a callback wants to be told."""

    JSON = "json"
    FORM = "form"

    @property
    def content_type(self) -> str:
        if self is Encoding.FORM:
            return "application/x-www-form-urlencoded"
        return "application/json"


def seed_record(event: Event, dpids: Mapping[str, int]) -> dict[str, str] | None:
    """Return what the seed's receiver is told of ``event``; None: it does not know such events.

    ``dpids`` has the switches by name; a switch that is not among them is called by its name.
    """
    if event.kind not in _VERBS:
        return None
    element, op = _VERBS[event.kind]
    data = event.data
    record = {"type": element}
    if element == "switch":
        record["switch"] = _dpid(event.subject, data.get("dpid"), dpids)
        if data.get("address") is not None:
            record["ip"] = str(data["address"])
    elif element == "VM":
        record["switch"] = str(data.get("switch", ""))
        record["vnet"] = str(data.get("vnet", ""))
    else:
        for end in ("src", "dst"):
            record[f"{end}-switch"] = _dpid(str(data.get(end, "")), None, dpids)
            record[f"{end}-port"] = str(data.get(f"{end}_port", ""))
    return {**record, "op": op}


def json_record(event: Event, dpids: Mapping[str, int]) -> dict[str, object]:
    """Return the seed's members where it has them, and the event whole."""
    return {
        **(seed_record(event, dpids) or {}),
        "kind": event.kind,
        "subject": event.subject,
        "time": event.time,
        "data": dict(event.data),
    }


def body_of(event: Event, encoding: Encoding, dpids: Mapping[str, int]) -> bytes | None:
    """Return the body of the request that tells of ``event``; None: there is nothing to say."""
    if encoding is Encoding.JSON:
        return _compact(json_record(event, dpids)).encode()
    record = seed_record(event, dpids)
    return None if record is None else b"data=" + quote(_compact(record), _UNESCAPED).encode()


def kind_wanted(kind: str, wanted: Collection[str]) -> bool:
    """Say whether ``kind`` is among ``wanted``: ``vm.added``, or ``vm.*``; none: every one is."""
    return not wanted or kind in wanted or kind.partition(".")[0] + ".*" in wanted


def dpid_text(dpid: int) -> str:
    """Return a datapath id as the seed writes it: eight bytes in hexadecimal, with colons."""
    return dpid.to_bytes(8, "big").hex(":")


def _compact(record: Mapping[str, object]) -> str:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


def _dpid(name: str, told: object, dpids: Mapping[str, int]) -> str:
    """A lost switch is no longer in the network, but its event may still say its number."""
    if name in dpids:
        return dpid_text(dpids[name])
    if isinstance(told, str):
        try:
            return dpid_text(int(told, 16))
        except (ValueError, OverflowError):
            return name
    return name
