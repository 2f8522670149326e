"""The conformance suite against the soft switch, all of it over the bytes of its agent."""

import pytest
from tests.fabric.softswitch.cases import CASES, DIFFERENCES, Case, Difference, run
from tests.fabric.softswitch.soft_device import SoftDevice


@pytest.fixture
def device() -> SoftDevice:
    return SoftDevice()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(device: SoftDevice, case: Case) -> None:
    run(device, case)


def test_one_switch_goes_through_all_cases(device: SoftDevice) -> None:
    """No case leaves anything behind that another one sees."""
    for case in CASES:
        run(device, case)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_the_specification_where_open_vswitch_differs(
    device: SoftDevice, difference: Difference
) -> None:
    run(device, difference.specified)
