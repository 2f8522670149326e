"""``bench channels``: plain seats by the sort switch, what is watched and what is not, the list.

Most of it needs root and Open vSwitch: sites of its own, removed afterwards.
"""

from collections.abc import Callable

from anabranch.app.bench.report import Result


def parts() -> dict[str, tuple[Callable[[int], list[Result]], int]]:
    """Return every measurement by name: what to call, and how many samples are usual."""
    from anabranch.app.bench.channels import cold, listing, losses, many, moves

    return {
        "moves": (moves.measure, 100),
        "many": (many.measure, 100),
        "losses": (losses.measure, 10),
        "cold": (cold.measure, 30),
        "listing": (listing.measure, 20_000),
    }


def measure(samples: int | None = None) -> list[Result]:
    """Measure everything, each with its usual number of samples or with ``samples``.

    Raises:
        UnavailableError: something needed is missing.
    """
    return [
        result
        for function, usual in parts().values()
        for result in function(usual if samples is None else samples)
    ]
