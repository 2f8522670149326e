"""The packet modules of a sandbox, one after the other over each batch. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from anabranch.services.batch import Batch
from anabranch.services.module import Module
from anabranch.services.slots import DROP, FORWARD, Slots

FAILURES_IN_A_ROW = 16
"""So often may a module fail one batch after the other; then packets pass it by."""


@dataclass(slots=True)
class Link:
    """One module in the chain, and how it fares."""

    name: str
    module: Module
    packets: int = 0
    failures: int = 0
    in_a_row: int = 0

    @property
    def failed(self) -> bool:
        return self.in_a_row >= FAILURES_IN_A_ROW


class Chain:
    """Runs a batch through the modules in the order in which they came."""

    def __init__(self, on_failure: Callable[[Link, Exception], None]) -> None:
        self.links: list[Link] = []
        self._on_failure = on_failure

    def run(self, slots: Slots) -> None:
        """Have every module see the packets, until one has dropped or answered them.

        What is no whole packet is dropped.
        """
        rows = slots.whole()
        if not isinstance(rows, slice):
            slots.verdicts[:] = DROP
            slots.verdicts[rows] = FORWARD
            slots.touched = True
        batch = Batch(slots, rows)
        for link in self.links:
            if link.failed or not link.module.sees_packets:
                continue
            batch = batch.remaining()
            if not len(batch):
                return
            link.packets += len(batch)
            try:
                link.module.process(batch)
                link.in_a_row = 0
            except Exception as error:  # the tenant's code: it may raise anything
                link.failures += 1
                link.in_a_row += 1
                self._on_failure(link, error)

    def replace(self, old: Link, new: Module) -> None:
        """Put a module in another's place, between two batches."""
        old.module = new
        old.in_a_row = 0
