"""Which leaf serves a viewer. Pure; a later policy replaces the function, not its callers."""

from collections.abc import Mapping
from random import Random

from anabranch.core.errors import UnavailableError


def least_loaded(loads: Mapping[str, int], rng: Random) -> str:
    """Return the leaf with the fewest viewers; among equals chance decides.

    Args:
        loads: viewers now at each leaf that takes viewers.
        rng: the source of chance.

    Raises:
        UnavailableError: no leaf takes viewers at the moment.
    """
    if not loads:
        raise UnavailableError("no leaf is ready; try again in a moment")
    fewest = min(loads.values())
    return rng.choice(sorted(leaf for leaf, load in loads.items() if load == fewest))
