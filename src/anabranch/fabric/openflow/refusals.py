"""Why a switch refuses, in words: error types and codes (OpenFlow 1.3.5, 7.4.4; 1.5.1, 7.5.4)."""

HELLO_FAILED, BAD_REQUEST, BAD_ACTION, BAD_INSTRUCTION, BAD_MATCH = range(5)
FLOW_MOD_FAILED, GROUP_MOD_FAILED = 5, 6
ROLE_REQUEST_FAILED, METER_MOD_FAILED = 11, 12
BUNDLE_FAILED = 17
EXPERIMENTER = 0xFFFF

# Type and code of the refusals that somebody acts on.
INCOMPATIBLE = HELLO_FAILED, 0
IS_SLAVE = BAD_REQUEST, 10
TABLE_FULL = FLOW_MOD_FAILED, 1
GROUP_EXISTS = GROUP_MOD_FAILED, 0
OUT_OF_GROUPS = GROUP_MOD_FAILED, 3
OUT_OF_BUCKETS = GROUP_MOD_FAILED, 4
UNKNOWN_GROUP = GROUP_MOD_FAILED, 8
STALE_ROLE = ROLE_REQUEST_FAILED, 0
METER_EXISTS = METER_MOD_FAILED, 1
UNKNOWN_METER = METER_MOD_FAILED, 3
OUT_OF_METERS = METER_MOD_FAILED, 10

_ONF_BUNDLE = 2300  # the codes of bundles before OpenFlow 1.4, as experimenter errors

# By type; the place in the list is the code. An empty name says nothing that the type does not.
_WORDS: dict[int, str] = {
    HELLO_FAILED: "no common version, not permitted",
    BAD_REQUEST: (
        "bad version, unknown message type, unknown multipart type, unknown experimenter,"
        "unknown experimenter type, not permitted, bad request length, buffer empty,"
        "unknown buffer, bad table, controller is slave, bad port, bad packet,"
        "multipart requests overflow, multipart request timed out, multipart reply timed out,"
        "bad schedule, not a pipeline field, "
    ),
    BAD_ACTION: (
        "unknown action, bad action length, unknown experimenter, unknown experimenter action,"
        "bad output port, bad action argument, action not permitted, too many actions,"
        "bad queue, unknown group in action, action contradicts match, unsupported action order,"
        "bad tag in action, field cannot be set, bad set_field length, bad set_field value,"
        "bad set_field mask, unknown meter in action"
    ),
    BAD_INSTRUCTION: (
        "unknown instruction, unsupported instruction, bad goto table, unsupported metadata,"
        "unsupported metadata mask, unknown experimenter, unknown experimenter instruction,"
        "bad instruction length, instruction not permitted, instruction twice"
    ),
    BAD_MATCH: (
        "unsupported match type, bad match length, bad tag in match, unsupported MAC mask,"
        "unsupported address mask, unsupported wildcards, unsupported match field,"
        "unsupported match value, unsupported match mask, match lacks a prerequisite,"
        "match field twice, match not permitted"
    ),
    FLOW_MOD_FAILED: (
        ",table full, no such table, overlapping flow, flow not permitted, unsupported time-out,"
        "unknown flow command, unsupported flow flags, tables out of step, unsupported priority,"
        "flow is read only"
    ),
    GROUP_MOD_FAILED: (
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
    ROLE_REQUEST_FAILED: (
        "stale generation id, role change unsupported, bad role, controller id unsupported,"
        "controller id in use"
    ),
    METER_MOD_FAILED: (
        ",meter exists, invalid meter, unknown meter, unknown meter command,"
        "unsupported meter flags, unsupported rate, unsupported burst, unsupported band,"
        "unsupported band value, meter table full, too many bands"
    ),
    14: "unknown property, bad property length, bad property value, too many properties,"
    "property twice, unknown experimenter, unknown experimenter property,"
    "unknown experimenter property value, property not permitted",
    15: "invalid asynchronous configuration, asynchronous configuration unsupported,"
    "asynchronous configuration not permitted",
    BUNDLE_FAILED: (
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
    if kind == EXPERIMENTER and code >= _ONF_BUNDLE:
        kind, code = BUNDLE_FAILED, code - _ONF_BUNDLE
    names = _NAMES.get(kind, [])
    return names[code] or None if code < len(names) else None
