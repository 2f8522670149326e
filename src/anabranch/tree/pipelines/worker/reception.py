"""Counters of what a source receives, over all senders that it has had."""

from typing import Any


class Reception:
    """Follows an RTP session: a sender that it forgets still counts."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._senders: dict[int, tuple[int, int, int]] = {}
        self._gone = (0, 0, 0)

    def stats(self) -> list[float]:
        """Return packets and octets received, packets lost, and the worst jitter in ms."""
        senders, jitter = {}, 0.0
        stats = self._session.get_property("stats")  # owns what is taken from it
        for sender in stats.get_value("source-stats"):
            if sender.get_value("internal") or not sender.get_value("packets-received"):
                continue
            senders[sender.get_value("ssrc")] = (
                sender.get_value("packets-received"),
                sender.get_value("octets-received"),
                sender.get_value("packets-lost"),
            )
            if (rate := sender.get_value("clock-rate")) > 0:
                jitter = max(jitter, sender.get_value("jitter") * 1000 / rate)
        gone = [counts for ssrc, counts in self._senders.items() if ssrc not in senders]
        self._gone = _sum([self._gone, *gone])
        self._senders = senders
        packets, octets, lost = _sum([self._gone, *senders.values()])
        return [packets, octets, max(0, lost), round(jitter, 3)]


def _sum(counts: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    packets, octets, lost = map(sum, zip(*counts, strict=True))
    return packets, octets, lost
