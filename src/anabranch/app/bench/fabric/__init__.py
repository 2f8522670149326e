"""``bench fabric``: the controller, the switches it programs, and what a failure costs.

Most of it needs root and Open vSwitch: namespaces of its own, removed afterwards.
"""

from collections.abc import Callable

from anabranch.app.bench.report import Result


def parts() -> dict[str, tuple[Callable[[int], list[Result]], int]]:
    """Return every measurement by name: what to call, and how many samples are usual.

    ``false-failovers`` counts its samples in minutes; ``setups-ovs`` in seconds.
    """
    from anabranch.app.bench.fabric import buckets, outages, paths, scale, setups, setups_ovs

    return {
        "setups": (setups.measure, 3),
        "setups-ovs": (setups_ovs.measure, 10),
        "paths": (paths.measure, 50),
        "buckets": (buckets.measure, 100),
        "scale": (scale.measure, 3),
        "outages": (outages.measure, 20),
        "false-failovers": (outages.measure_false_failovers, 10),
    }


def measure(samples: int | None = None) -> list[Result]:
    """Measure everything, each with its usual number of samples or with ``samples``.

    Raises:
        UnavailableError: something needed is missing: root, Open vSwitch, os-ken.
    """
    return [
        result
        for function, usual in parts().values()
        for result in function(usual if samples is None else samples)
    ]
