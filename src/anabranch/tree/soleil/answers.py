"""Answers whose envelope depends on the request's."""

from anabranch.tree.soleil.messages import FullStats, Message, ReqFullStats, StreamStats


def full_stats(
    request: Message,
    asked: ReqFullStats,
    containers: tuple[StreamStats, ...],
    *,
    sender: str,
    drawn: str,
    end: float | None = None,
) -> Message:
    """Return the FULLSTATS that answers ``request``, whose body is ``asked``.

    It echoes time and ``pipeid``, by which the root tells its requests apart (seed 000, 3.1.2).
    ``drawn`` is its id, ``end`` when the figures were taken, seconds since the epoch.
    """
    return Message(
        FullStats(containers, asked.pipeline, end),
        request.time_ms,
        to=request.sender,
        sender=sender,
        id=drawn,
        in_seconds=request.in_seconds,
    )
