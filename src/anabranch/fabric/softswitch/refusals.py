"""Why a switch refuses a request: error types and codes (OpenFlow 1.3.5, section 7.4.4)."""

from enum import Enum

from anabranch.fabric.errors import FabricError


class Refusal(Enum):
    """Type and code of an error message."""

    HELLO_INCOMPATIBLE = 0, 0
    BAD_TYPE = 1, 1
    BAD_MULTIPART = 1, 2
    IS_SLAVE = 1, 10
    BAD_LENGTH = 1, 6
    BAD_ACTION_TYPE = 2, 0
    BAD_OUT_PORT = 2, 4
    BAD_OUT_GROUP = 2, 9
    UNSUPPORTED_INSTRUCTION = 3, 1
    BAD_GOTO = 3, 2
    BAD_FIELD = 4, 6
    TABLE_FULL = 5, 1
    BAD_TABLE = 5, 2
    OVERLAP = 5, 3
    BAD_COMMAND = 5, 6
    GROUP_EXISTS = 6, 0
    INVALID_GROUP = 6, 1
    WATCH_UNSUPPORTED = 6, 6
    GROUP_LOOP = 6, 7
    UNKNOWN_GROUP = 6, 8
    CHAINED_GROUP = 6, 9
    UNKNOWN_BUCKET = 6, 15
    BUCKET_EXISTS = 6, 16
    ROLE_STALE = 11, 0
    BAD_ROLE = 11, 2
    METER_EXISTS = 12, 1
    INVALID_METER = 12, 2
    UNKNOWN_METER = 12, 3

    @property
    def type(self) -> int:
        return self.value[0]

    @property
    def code(self) -> int:
        return self.value[1]


class RefusedError(FabricError):
    """The switch does not do what the controller asks; nothing was changed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.name.lower().replace("_", " "))
        self.refusal = refusal
