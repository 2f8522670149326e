"""Where plain seats may send: whatever is asked for, a stream goes to who wants it."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.channels.destinations import FIRST_PORT, Admission, parse_destination
from anabranch.core.errors import ForbiddenError, UsageError

ADMISSION = Admission([IPv4Network("10.1.0.0/16")], [IPv4Network("10.98.0.0/24")])


def test_a_url_is_an_address_a_port_and_what_is_sent() -> None:
    made = parse_destination("udp://192.0.2.7:5000")
    assert (str(made.address), made.port, made.form) == ("192.0.2.7", 5000, "ts")
    assert parse_destination("udp://@192.0.2.7:5000/", "ts") == made  # as players write it
    assert parse_destination("rtp://192.0.2.7:5000", "rtp").form == "rtp"
    made = parse_destination("udp://[2001:DB8:0::7]:5000")
    assert (str(made.address), made.port, made.form) == ("2001:db8::7", 5000, "ts")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.7:5000",
        "udp://192.0.2.7",
        "udp://192.0.2.7:0",
        "udp://192.0.2.7:53",  # a flood of questions to a name server
        "udp://192.0.2.7:65534",  # no room for the sound
        "udp://192.0.2.7:5000/path",
        "udp://192.0.2.7:5000?pkt_size=9",
        "udp://me@192.0.2.7:5000",
        "udp://receiver.example:5000",
        "udp://2001:db8::1:5000",
        "udp://[fe80::1%25eth0]:5000",  # which eth0?
        "udp://[fe80::1%eth0]:5000",
        "udp://[::ffff:192.0.2.7]:5000",
        "udp://0300.0.2.7:5000",
        "http://192.0.2.7:5000",
        "udp://192.0.2.7:99999",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_destination(text)


def test_url_and_format_must_agree() -> None:
    with pytest.raises(UsageError, match="udp:// is for the format ts"):
        parse_destination("udp://192.0.2.7:5000", "rtp")


@given(st.text(max_size=60) | st.from_regex(r"(udp|rtp)://.{0,30}:[0-9]{0,7}.{0,5}"))
def test_whatever_is_asked_for_is_a_destination_or_one_error(text: str) -> None:
    with suppress(UsageError):
        made = parse_destination(text)
        assert FIRST_PORT <= made.port <= 65533
        assert made.form in ("ts", "rtp")


def allowed(address: str, client: str = "192.0.2.1", *, operator: bool = False) -> bool:
    try:
        ADMISSION.check(IPv4Address(address), client, operator=operator)
    except ForbiddenError:
        return False
    return True


def test_one_may_name_oneself_and_the_operator_anybody() -> None:
    assert allowed("192.0.2.1")
    assert not allowed("192.0.2.2")
    assert not allowed("192.0.2.2", "")
    assert not allowed("127.0.0.1")
    assert allowed("127.0.0.1", "127.0.0.1")
    assert allowed("192.0.2.2", operator=True)
    assert allowed("10.1.77.3")


@pytest.mark.parametrize(
    "address",
    [
        *("224.0.0.1", "239.192.0.17", "255.255.255.255", "0.0.0.0", "169.254.1.1", "240.0.0.1"),
        "10.98.0.5",
    ],
)
def test_nobody_may_name_what_is_no_receiver(address: str) -> None:
    with pytest.raises(UsageError):
        ADMISSION.check(IPv4Address(address), address, operator=True)
