"""The leaf servers that benchmarks compare."""

from anabranch.core.errors import UsageError

KINDS = ("anabranch", "janus")
BOTH = "both"


def kinds_of(name: str | None) -> tuple[str, ...]:
    """Return which leaf servers to measure, in this order.

    Raises:
        UsageError: there is no such leaf server.
    """
    if name in (None, BOTH):
        return KINDS
    if name not in KINDS:
        raise UsageError(f"there is no leaf server {name!r}; there are {', '.join((*KINDS, BOTH))}")
    return (name,)
