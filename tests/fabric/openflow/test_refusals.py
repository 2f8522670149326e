"""Error codes as words, against the codes that os-ken knows."""

import pytest
from tests.fabric.openflow.oracle import CONSTANTS

from anabranch.fabric.openflow.refusals import Refusal, words

PREFIXES = {
    0: "OFPHFC_",
    1: "OFPBRC_",
    2: "OFPBAC_",
    3: "OFPBIC_",
    4: "OFPBMC_",
    5: "OFPFMFC_",
    6: "OFPGMFC_",
    7: "OFPPMFC_",
    8: "OFPTMFC_",
    9: "OFPQOFC_",
    10: "OFPSCFC_",
    11: "OFPRRFC_",
    12: "OFPMMFC_",
    15: "OFPACFC_",
    17: "OFPBFC_",
}


@pytest.mark.parametrize("kind", PREFIXES)
def test_every_code_of_the_specification_has_words_of_its_own(kind: int) -> None:
    codes = {
        code: name
        for constants in CONSTANTS.values()
        for name, code in vars(constants).items()
        if name.startswith(PREFIXES[kind])
    }
    said = [words(kind, code) for code, name in codes.items() if not name.endswith("_UNKNOWN")]
    assert all(said)
    assert len(set(said)) == len(said)
    assert words(kind, max(codes) + 1) is None


CONSTANT_OF = {
    Refusal.INCOMPATIBLE: "OFPHFC_INCOMPATIBLE",
    Refusal.BAD_TYPE: "OFPBRC_BAD_TYPE",
    Refusal.BAD_MULTIPART: "OFPBRC_BAD_MULTIPART",
    Refusal.BAD_LENGTH: "OFPBRC_BAD_LEN",
    Refusal.IS_SLAVE: "OFPBRC_IS_SLAVE",
    Refusal.BAD_ACTION_TYPE: "OFPBAC_BAD_TYPE",
    Refusal.BAD_OUT_PORT: "OFPBAC_BAD_OUT_PORT",
    Refusal.BAD_OUT_GROUP: "OFPBAC_BAD_OUT_GROUP",
    Refusal.UNSUPPORTED_INSTRUCTION: "OFPBIC_UNSUP_INST",
    Refusal.BAD_GOTO: "OFPBIC_BAD_TABLE_ID",
    Refusal.BAD_FIELD: "OFPBMC_BAD_FIELD",
    Refusal.TABLE_FULL: "OFPFMFC_TABLE_FULL",
    Refusal.BAD_TABLE: "OFPFMFC_BAD_TABLE_ID",
    Refusal.OVERLAP: "OFPFMFC_OVERLAP",
    Refusal.BAD_COMMAND: "OFPFMFC_BAD_COMMAND",
    Refusal.GROUP_EXISTS: "OFPGMFC_GROUP_EXISTS",
    Refusal.INVALID_GROUP: "OFPGMFC_INVALID_GROUP",
    Refusal.WATCH_UNSUPPORTED: "OFPGMFC_WATCH_UNSUPPORTED",
    Refusal.GROUP_LOOP: "OFPGMFC_LOOP",
    Refusal.UNKNOWN_GROUP: "OFPGMFC_UNKNOWN_GROUP",
    Refusal.CHAINED_GROUP: "OFPGMFC_CHAINED_GROUP",
    Refusal.UNKNOWN_BUCKET: "OFPGMFC_UNKNOWN_BUCKET",
    Refusal.BUCKET_EXISTS: "OFPGMFC_BUCKET_EXISTS",
    Refusal.STALE_ROLE: "OFPRRFC_STALE",
    Refusal.BAD_ROLE: "OFPRRFC_BAD_ROLE",
    Refusal.METER_EXISTS: "OFPMMFC_METER_EXISTS",
    Refusal.INVALID_METER: "OFPMMFC_INVALID_METER",
    Refusal.UNKNOWN_METER: "OFPMMFC_UNKNOWN_METER",
}


@pytest.mark.parametrize("refusal", Refusal)
def test_the_refusals_that_are_given_or_acted_on(refusal: Refusal) -> None:
    constant = CONSTANT_OF[refusal]
    assert getattr(CONSTANTS[6], constant) == refusal.code
    assert constant.startswith(PREFIXES[refusal.type])


def test_bundles_before_openflow_14_have_the_same_words() -> None:
    assert words(0xFFFF, 2313) == words(17, 13) == "message in bundle failed"
    assert words(0xFFFF, 5) is None
    assert words(99, 0) is None
