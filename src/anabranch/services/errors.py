"""The base of what package services raises; each part adds its own beneath."""

from anabranch.core.errors import AnabranchError, UsageError


class ServicesError(AnabranchError):
    """Base of every error of package services."""


class KeyFileError(ServicesError, UsageError):
    """A key that cannot be read, or of a kind that is not taken."""


class SignatureError(ServicesError):
    """A signature that does not fit its data and key."""


class ModuleError(ServicesError):
    """A module, or what runs one, asked a batch or its context for what cannot be."""


class ArchiveError(ServicesError):
    """An archive that is not one, does not match its signature, or asks for too much."""


class MessageError(ServicesError, UsageError):
    """A signalling message that is not of the form, or of a size, that it must be."""
