"""A viewer's figures, out of what Janus' admin API says of its handle."""

from anabranch.media.janus_client import Message, within
from anabranch.media.leaf import ViewerStatistics


def read_handle_info(info: Message) -> ViewerStatistics:
    """Read Janus' ``handle_info`` (its admin API) into figures; anything absent counts as none."""
    sent = packets = lost = nacks = 0.0
    jitter: float | None = None
    rtt: float | None = None
    for medium in within(info, "webrtc", "media").values():
        sent += _figure(within(medium, "stats", "out"), "bytes") or 0
        packets += _figure(within(medium, "stats", "out"), "packets") or 0
        nacks += _figure(within(medium, "stats", "in"), "nacks") or 0
        main = within(medium, "rtcp", "main")
        lost += _figure(main, "lost-by-remote") or 0
        if within({"": medium}, "").get("type") == "video":
            jitter = _figure(main, "jitter-remote")
            rtt = _figure(main, "rtt")
    return ViewerStatistics(int(sent), int(packets), int(lost), int(nacks), jitter, rtt)


def _figure(fields: Message, name: str) -> float | None:
    value = fields.get(name)
    # Above 2^53 no count is meant: and sums must stay finite.
    return value if isinstance(value, (int, float)) and abs(value) < 2**53 else None
