"""Numbers for what several measurements and tests on a machine must not share: subnets, ports."""

import secrets
import socket

from anabranch.core.errors import UnavailableError


class Claim:
    """A number that nobody else on this machine has for the same use until it is released.

    It is the name of an abstract Unix socket: the kernel takes that back even from a process that
    is killed. Abstract names are those of a network namespace.

    Attributes:
        number: from 0 up to, not including, ``count``.
    """

    def __init__(self, use: str, count: int) -> None:
        """Take one of those that are free.

        Raises:
            UnavailableError: none is.
        """
        self._held = socket.socket(socket.AF_UNIX)
        for number in secrets.SystemRandom().sample(range(count), count):
            try:
                self._held.bind(f"\0anabranch-{use}-{number}")
            except OSError:
                continue
            self.number = number
            return
        self._held.close()
        raise UnavailableError(f"all {count} of {use} are in use on this machine")

    def release(self) -> None:
        self._held.close()
