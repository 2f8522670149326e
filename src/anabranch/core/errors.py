"""The root of every error that Anabranch raises on purpose."""


class AnabranchError(Exception):
    """Base of every package's error base; the message is one line for a person to read."""


class UsageError(AnabranchError):
    """The caller asked for something that cannot be: bad name, unknown channel, taken port."""


class NotFoundError(UsageError):
    """The thing named does not exist."""


class ConflictError(UsageError):
    """The thing exists already or is busy."""


class ForbiddenError(AnabranchError):
    """It could be done, but not for this caller."""


class UnavailableError(AnabranchError):
    """It would be possible, but not now: a leaf restarts, the store is full."""


class TooManyError(UnavailableError):
    """The caller asks for too much at once; what it asked for before must end first."""
