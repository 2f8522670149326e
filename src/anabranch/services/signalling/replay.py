"""The replay window: a request counts once, and only near the time that it names."""

from collections import defaultdict

from anabranch.services.errors import ServicesError
from anabranch.services.signalling.request import Request

WINDOW = 300.0  # seconds that the clocks of sender and node may differ
MAX_NONCES = 100_000  # of one user within the window, about 100 bytes each
_BUCKET = 60  # seconds; nonces are forgotten a bucket at a time


class ReplayError(ServicesError):
    """The request was seen before, or is too old or too new to tell."""


class TooManyRequestsError(ServicesError):
    """A user sends more requests than the node can remember within the window."""


class ReplayWindow:
    """Remembers every nonce for as long as its request would be accepted by its time alone.

    Only requests whose signature is verified may get here; then one user can fill no other's.
    What the node saw before it started it does not know: requests made before that are refused.
    """

    def __init__(
        self, started: float, *, window: float = WINDOW, capacity: int = MAX_NONCES
    ) -> None:
        """Begin at ``started``, seconds since the epoch."""
        self._started = started
        self._window = window
        self._capacity = capacity
        # by user, then by the bucket in which the window has passed
        self._seen: defaultdict[str, dict[int, set[bytes]]] = defaultdict(dict)

    def __len__(self) -> int:
        return sum(len(nonces) for buckets in self._seen.values() for nonces in buckets.values())

    def admit(self, request: Request, wall_time: float) -> None:
        """Take in a request whose signature has been verified.

        Args:
            request: what came.
            wall_time: seconds since the epoch, by this node's clock.

        Raises:
            ReplayError: that user used its nonce before, or its time is outside the window.
            TooManyRequestsError: no more of that user's can be remembered.
        """
        late = wall_time - request.time
        if abs(late) > self._window:
            raise ReplayError(
                f"the request's time is {abs(late):.0f} s {'ago' if late > 0 else 'ahead'},"
                f" more than {self._window:.0f} s: is the sender's clock right?"
            )
        if request.time < int(self._started):
            raise ReplayError("the request was made before this node started: send a new one")
        buckets = self._seen[request.user]
        for bucket in [bucket for bucket in buckets if (bucket + 1) * _BUCKET < wall_time]:
            del buckets[bucket]
        nonces = buckets.setdefault(int(request.time + self._window) // _BUCKET, set())
        if request.nonce in nonces:
            raise ReplayError("the request was seen before")
        if sum(map(len, buckets.values())) >= self._capacity:
            raise TooManyRequestsError(
                f"more than {self._capacity} requests of user {request.user} within the window"
            )
        nonces.add(request.nonce)
