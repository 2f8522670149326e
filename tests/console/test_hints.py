"""What browsers tell of themselves, as they really say it."""

import pytest

from anabranch.console.hints import bandwidth_of, device_of

PHONE = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/156.0 Mobile Safari/537.36"
TABLET = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/156.0 Safari/537.36"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148"
IPAD = "Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) Version/16.0 Mobile/15E148"
DESK = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0 Safari/537.36"


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (PHONE, "phone"),
        (IPHONE, "phone"),
        (TABLET, "tablet"),
        (IPAD, "tablet"),
        (DESK, None),
        ("", None),
    ],
)
def test_devices_are_told_apart(agent: str, device: str | None) -> None:
    assert device_of({"user-agent": agent}) == device


def test_a_client_hint_says_phone_too() -> None:
    assert device_of({"sec-ch-ua-mobile": "?1"}) == "phone"
    assert device_of({"sec-ch-ua-mobile": "?0"}) is None
    assert device_of({}) is None


def test_who_saves_data_gets_the_least() -> None:
    assert bandwidth_of({"save-data": "on", "ect": "4g"}) == 0.0
    assert bandwidth_of({"ect": "3g"}) == 700.0
    assert bandwidth_of({"ect": "4g"}) is None
    assert bandwidth_of({"save-data": "off"}) is None
    assert bandwidth_of({}) is None
