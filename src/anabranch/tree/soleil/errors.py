"""What can go wrong with SOLEIL messages."""

from anabranch.core.errors import AnabranchError
from anabranch.tree.soleil.messages import Fault


class SoleilError(AnabranchError):
    """Base of the protocol's errors."""


class CodecError(SoleilError):
    """A document is no message, or a message cannot be written.

    Attributes:
        fault: what an ERROR that answers it complains of.
        type, to, sender, id: the document's, as far as they could be read; else None.
    """

    def __init__(self, text: str, fault: Fault = Fault.MALFORMED) -> None:
        super().__init__(text)
        self.fault = fault
        self.type: str | None = None
        self.to: str | None = None
        self.sender: str | None = None
        self.id: str | None = None
