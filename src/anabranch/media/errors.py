"""The errors of package media."""

from anabranch.core.errors import AnabranchError, UsageError


class MediaError(AnabranchError):
    """Base of what package media raises."""


class SourceError(MediaError, UsageError):
    """A source that cannot be: wrong text, refused protocol, missing file."""


class RenditionError(MediaError, UsageError):
    """A ladder of renditions or a format that cannot be encoded or sent."""


class EncoderError(MediaError):
    """The encoder process could not be started or did not become ready in time."""


class ThumbnailError(MediaError):
    """A key frame of which no picture can be made."""


class RtmpError(MediaError):
    """The RTMP server could not be started, or its call could not be understood."""
