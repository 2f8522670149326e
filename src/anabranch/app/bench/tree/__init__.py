"""``bench tree``: what the delivery tree's protocol, planning and statistics cost."""

from collections.abc import Callable

from anabranch.app.bench.report import Result


def parts() -> dict[str, tuple[Callable[[int], list[Result]], int]]:
    """Return every measurement by name: what to call, and how many samples are usual."""
    from anabranch.app.bench.tree import (
        aggregation,
        codec,
        hello_storm,
        plan,
        relay_death,
        root_restart,
    )

    return {
        "aggregation": (aggregation.measure, 5),
        "codec": (codec.measure, 20),
        "hello-storm": (hello_storm.measure, 3),
        "plan": (plan.measure, 50),
        "relay-death": (relay_death.measure, 30),
        "root-restart": (root_restart.measure, 10),
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
