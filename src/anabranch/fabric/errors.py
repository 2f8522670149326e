"""What can go wrong with switches."""

from anabranch.core.errors import AnabranchError, NotFoundError, UnavailableError, UsageError


class FabricError(AnabranchError):
    """Base of this package: a switch refused, did not answer or could not be started."""


class MisuseError(FabricError, UsageError):
    """The caller asked for what cannot be expressed: a bad address, port or sequence of calls."""


class ProtocolError(FabricError):
    """The peer broke the protocol; nothing it sends afterwards can be trusted.

    Every parser of this package raises this and nothing else, whatever the bytes.
    """


class DisconnectedError(FabricError, UnavailableError):
    """The switch is not connected, or went away before it answered."""


class NoPathError(FabricError, NotFoundError):
    """There is no path of that name."""
