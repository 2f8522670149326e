"""What a viewer's request tells of its device and its way in."""

import re
from collections.abc import Mapping

_TABLET = re.compile(r"iPad|Tablet|Android(?!.*Mobile)")
_PHONE = re.compile(r"Mobi")
_KBPS = {"slow-2g": 50.0, "2g": 70.0, "3g": 700.0}
"""Upper bounds of the types of https://wicg.github.io/netinfo/#effective-connection-types."""


def device_of(headers: Mapping[str, str]) -> str | None:
    """Return ``phone`` or ``tablet``; None: anything else, or not known."""
    agent = headers.get("user-agent", "")
    if _TABLET.search(agent):
        return "tablet"
    if _PHONE.search(agent) or headers.get("sec-ch-ua-mobile") == "?1":
        return "phone"
    return None


def bandwidth_of(headers: Mapping[str, str]) -> float | None:
    """Return kbit/s that the viewer wants at most; None: not known.

    Who wants to save data (``Save-Data: on``) gets the least there is.
    """
    if headers.get("save-data", "").strip().lower() == "on":
        return 0.0
    return _KBPS.get(headers.get("ect", "").strip().lower())
