"""How a soft switch refuses a request."""

from anabranch.fabric.errors import FabricError
from anabranch.fabric.openflow.refusals import Refusal


class RefusedError(FabricError):
    """The switch does not do what the controller asks; nothing was changed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.name.lower().replace("_", " "))
        self.refusal = refusal
