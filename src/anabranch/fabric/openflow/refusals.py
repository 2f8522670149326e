"""Why a switch refuses, in words: error types and codes (OpenFlow 1.3.5, 7.4.4; 1.5.1, 7.5.4)."""

from enum import Enum

_HELLO_FAILED, _BAD_REQUEST, _BAD_ACTION, _BAD_INSTRUCTION, _BAD_MATCH = range(5)
_FLOW_MOD_FAILED, _GROUP_MOD_FAILED = 5, 6
_ROLE_REQUEST_FAILED, _METER_MOD_FAILED = 11, 12
_BUNDLE_FAILED = 17
_EXPERIMENTER = 0xFFFF


class Refusal(Enum):
    """Type and code of the refusals that somebody gives or acts on."""

    INCOMPATIBLE = _HELLO_FAILED, 0
    BAD_TYPE = _BAD_REQUEST, 1
    BAD_MULTIPART = _BAD_REQUEST, 2
    BAD_LENGTH = _BAD_REQUEST, 6
    IS_SLAVE = _BAD_REQUEST, 10
    BAD_ACTION_TYPE = _BAD_ACTION, 0
    BAD_OUT_PORT = _BAD_ACTION, 4
    BAD_OUT_GROUP = _BAD_ACTION, 9
    UNSUPPORTED_INSTRUCTION = _BAD_INSTRUCTION, 1
    BAD_GOTO = _BAD_INSTRUCTION, 2
    BAD_FIELD = _BAD_MATCH, 6
    TABLE_FULL = _FLOW_MOD_FAILED, 1
    BAD_TABLE = _FLOW_MOD_FAILED, 2
    OVERLAP = _FLOW_MOD_FAILED, 3
    BAD_COMMAND = _FLOW_MOD_FAILED, 6
    GROUP_EXISTS = _GROUP_MOD_FAILED, 0
    INVALID_GROUP = _GROUP_MOD_FAILED, 1
    WATCH_UNSUPPORTED = _GROUP_MOD_FAILED, 6
    GROUP_LOOP = _GROUP_MOD_FAILED, 7
    UNKNOWN_GROUP = _GROUP_MOD_FAILED, 8
    CHAINED_GROUP = _GROUP_MOD_FAILED, 9
    UNKNOWN_BUCKET = _GROUP_MOD_FAILED, 15
    BUCKET_EXISTS = _GROUP_MOD_FAILED, 16
    STALE_ROLE = _ROLE_REQUEST_FAILED, 0
    BAD_ROLE = _ROLE_REQUEST_FAILED, 2
    METER_EXISTS = _METER_MOD_FAILED, 1
    INVALID_METER = _METER_MOD_FAILED, 2
    UNKNOWN_METER = _METER_MOD_FAILED, 3

    @property
    def type(self) -> int:
        return self.value[0]

    @property
    def code(self) -> int:
        return self.value[1]


_ONF_BUNDLE = 2300  # the codes of bundles before OpenFlow 1.4, as experimenter errors

# By type; the place in the list is the code. An empty name says nothing that the type does not.
_WORDS: dict[int, str] = {
    _HELLO_FAILED: "no common version, not permitted",
    _BAD_REQUEST: (
        "bad version, unknown message type, unknown multipart type, unknown experimenter,"
        "unknown experimenter type, not permitted, bad request length, buffer empty,"
        "unknown buffer, bad table, controller is slave, bad port, bad packet,"
        "multipart requests overflow, multipart request timed out, multipart reply timed out,"
        "bad schedule, not a pipeline field, "
    ),
    _BAD_ACTION: (
        "unknown action, bad action length, unknown experimenter, unknown experimenter action,"
        "bad output port, bad action argument, action not permitted, too many actions,"
        "bad queue, unknown group in action, action contradicts match, unsupported action order,"
        "bad tag in action, field cannot be set, bad set_field length, bad set_field value,"
        "bad set_field mask, unknown meter in action"
    ),
    _BAD_INSTRUCTION: (
        "unknown instruction, unsupported instruction, bad goto table, unsupported metadata,"
        "unsupported metadata mask, unknown experimenter, unknown experimenter instruction,"
        "bad instruction length, instruction not permitted, instruction twice"
    ),
    _BAD_MATCH: (
        "unsupported match type, bad match length, bad tag in match, unsupported MAC mask,"
        "unsupported address mask, unsupported wildcards, unsupported match field,"
        "unsupported match value, unsupported match mask, match lacks a prerequisite,"
        "match field twice, match not permitted"
    ),
    _FLOW_MOD_FAILED: (
        ",table full, no such table, overlapping flow, flow not permitted, unsupported time-out,"
        "unknown flow command, unsupported flow flags, tables out of step, unsupported priority,"
        "flow is read only"
    ),
    _GROUP_MOD_FAILED: (
        "group exists, invalid group, unequal weights unsupported, group table full,"
        "too many buckets, chained groups unsupported, watching unsupported, groups form a loop,"
        "unknown group, group is used by another, unsupported group type, unknown group command,"
        "bad bucket, bad watch port or group, group not permitted, unknown bucket, bucket exists"
    ),
    7: "no such port, wrong hardware address, bad port configuration, bad port features,"
    "port not permitted",
    8: "no such table, bad table configuration, table not permitted",
    9: "bad port, no such queue, queue not permitted",
    10: "bad switch flags, bad miss_send_len, configuration not permitted",
    _ROLE_REQUEST_FAILED: (
        "stale generation id, role change unsupported, bad role, controller id unsupported,"
        "controller id in use"
    ),
    _METER_MOD_FAILED: (
        ",meter exists, invalid meter, unknown meter, unknown meter command,"
        "unsupported meter flags, unsupported rate, unsupported burst, unsupported band,"
        "unsupported band value, meter table full, too many bands"
    ),
    14: "unknown property, bad property length, bad property value, too many properties,"
    "property twice, unknown experimenter, unknown experimenter property,"
    "unknown experimenter property value, property not permitted",
    15: "invalid asynchronous configuration, asynchronous configuration unsupported,"
    "asynchronous configuration not permitted",
    _BUNDLE_FAILED: (
        ",bundle not permitted, unknown bundle, bundle exists, bundle is closed,"
        "too many bundles, unknown bundle request, bad bundle flags, bad message in bundle,"
        "wrong xid in bundle, unsupported message in bundle, messages in bundle conflict,"
        "bundle too large, message in bundle failed, bundle timed out, bundle in progress,"
        "schedule unsupported, schedule too far ahead, schedule in the past"
    ),
}
_NAMES = {kind: [name.strip() for name in names.split(",")] for kind, names in _WORDS.items()}


def words(kind: int, code: int) -> str | None:
    """Return an error's type and code as words; None if they say nothing or are not known."""
    if kind == _EXPERIMENTER and code >= _ONF_BUNDLE:
        kind, code = _BUNDLE_FAILED, code - _ONF_BUNDLE
    names = _NAMES.get(kind, [])
    return names[code] or None if code < len(names) else None
