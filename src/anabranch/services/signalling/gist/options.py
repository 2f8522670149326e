"""How a node takes part in GIST."""

from dataclasses import dataclass

from anabranch.services.signalling.gist.objects import Stack

PORT = 270  # IANA; queries go there


@dataclass(frozen=True, slots=True)
class GistOptions:
    """What a node's operator may choose.

    Attributes:
        refresh: seconds after which the next node is looked for again, at the latest.
        query_timeout: seconds before the first repetition of a Query, doubled for each other.
        query_tries: Queries without an answer that make this the last node.
        max_sessions: held at a time; queries of more stay unanswered.
        max_per_source: of them, from one node before us (by its address; of IPv6, its /64).
        stack: how other nodes may connect to us; None: by datagrams only.
        destination_port: where queries go.
    """

    refresh: float = 120.0
    query_timeout: float = 0.5
    query_tries: int = 3
    max_sessions: int = 200_000
    max_per_source: int = 100_000
    stack: Stack | None = None
    destination_port: int = PORT

    @property
    def validity(self) -> float:
        """Seconds that routing state holds: two refreshes may get lost."""
        return 3 * self.refresh
