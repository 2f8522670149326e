"""Error codes as words, against the codes that os-ken knows."""

import pytest
from tests.fabric.openflow.oracle import CONSTANTS

from anabranch.fabric.openflow import refusals
from anabranch.fabric.openflow.refusals import words

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


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        ("INCOMPATIBLE", "OFPHFC_INCOMPATIBLE"),
        ("IS_SLAVE", "OFPBRC_IS_SLAVE"),
        ("TABLE_FULL", "OFPFMFC_TABLE_FULL"),
        ("GROUP_EXISTS", "OFPGMFC_GROUP_EXISTS"),
        ("OUT_OF_GROUPS", "OFPGMFC_OUT_OF_GROUPS"),
        ("OUT_OF_BUCKETS", "OFPGMFC_OUT_OF_BUCKETS"),
        ("UNKNOWN_GROUP", "OFPGMFC_UNKNOWN_GROUP"),
        ("STALE_ROLE", "OFPRRFC_STALE"),
        ("METER_EXISTS", "OFPMMFC_METER_EXISTS"),
        ("UNKNOWN_METER", "OFPMMFC_UNKNOWN_METER"),
        ("OUT_OF_METERS", "OFPMMFC_OUT_OF_METERS"),
    ],
)
def test_the_refusals_that_are_acted_on(name: str, constant: str) -> None:
    kind, code = getattr(refusals, name)
    assert getattr(CONSTANTS[6], constant) == code
    assert constant.startswith(PREFIXES[kind])


def test_bundles_before_openflow_14_have_the_same_words() -> None:
    assert words(0xFFFF, 2313) == words(17, 13) == "message in bundle failed"
    assert words(0xFFFF, 5) is None
    assert words(99, 0) is None
