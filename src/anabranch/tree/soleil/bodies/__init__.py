"""What stands inside ``<message>``, by type, in the seed's three groups."""

from collections.abc import Mapping
from typing import Any

from anabranch.tree.soleil.bodies import nodes, pipelines, statistics
from anabranch.tree.soleil.bodies.format import Format

FORMATS: Mapping[str, Format[Any]] = {
    **nodes.FORMATS,
    **pipelines.FORMATS,
    **statistics.FORMATS,
}
"""By type as it is written."""
