"""What the leaf server of our own logs, in our log."""

import json

import structlog

_OWN = ("event", "level", "timestamp")
_log = structlog.get_logger("anabranch.leaf")


def relay(leaf: str, line: str) -> None:
    """Log a line that a server has printed: what is none of its log's is told as a warning."""
    try:
        said = json.loads(line)
        event, level = said["event"], said["level"]
    except (ValueError, TypeError, KeyError, RecursionError):
        _log.warning("leaf.printed", leaf=leaf, line=line[:500])
        return
    # What it does all the time is told by its events, and to the log by those who hear them.
    say = _log.debug if level in ("debug", "info") else _log.warning
    fields = {name: value for name, value in said.items() if name not in _OWN}
    say("leaf.says", leaf=leaf, said=str(event), details=fields or None)
