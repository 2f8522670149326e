"""The way in from outside: ports of this machine that are forwarded to addresses behind it.

Thin over nft and sysctl; all functions block for milliseconds. The families are forwarded each for
itself: a site that nobody reaches by one of them changes nothing about it.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal, TypeVar

from anabranch.host.network import NetworkError, run_tool

Family = Literal["ip", "ip6"]
"""As nft calls them."""
FAMILIES: tuple[Family, ...] = ("ip", "ip6")
Address = TypeVar("Address", IPv4Address, IPv6Address)
_FORWARDING_4 = Path("/proc/sys/net/ipv4/ip_forward")
_SETTINGS_6 = Path("/proc/sys/net/ipv6/conf")
_FORWARDING_6 = _SETTINGS_6 / "all" / "forwarding"


def family_of(address: str) -> Family:
    """Return the family of an address."""
    return "ip6" if ":" in address else "ip"


def forward_ports(
    table: str,
    family: Family,
    forwards: Mapping[Address, tuple[int, int]],
    *,
    streams_from: int | None = None,
) -> None:
    """Forward UDP ports of this machine to addresses behind it, in an nft table of its own.

    Who sends keeps the address: it is what answers go to, and the way there is this machine's.

    Args:
        table: name of the table; made anew.
        family: of the table and all addresses; each family has a table of that name.
        forwards: for each inner address the first and last port that belong to it.
        streams_from: what these addresses send from this port, unasked, goes out as this
            machine's; None: they send nothing unasked.

    Raises:
        NetworkError: the kernel does not translate addresses of this family.
    """
    rules = "\n".join(
        f"fib daddr type local udp dport {first}-{last} dnat to {address}"
        for address, (first, last) in forwards.items()
    )
    chains = "".join(
        f"chain {hook} {{\ntype nat hook {hook} priority {priority}; policy accept;\n{rules}\n}}\n"
        for hook, priority in (("prerouting", "dstnat"), ("output", "-100"))
    )
    if streams_from is not None:
        out = "\n".join(
            f"{family} saddr {address} udp sport {streams_from} masquerade" for address in forwards
        )
        chains += (
            "chain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n"
            f"{out}\n}}\n"
        )
    run_tool("nft", "-f", "-", stdin=f"table {family} {table}\ndelete table {family} {table}\n"
             f"table {family} {table} {{\n{chains}}}\n")  # fmt: skip


def remove_table(table: str) -> None:
    """Remove an nft table, of whichever family; absent is fine."""
    for family in FAMILIES:
        with suppress(NetworkError):
            run_tool("nft", "delete", "table", family, table)


def enable_forwarding(family: Family, keeper: Path) -> None:
    """Have this machine forward packets of a family; ``keeper`` keeps what was set before.

    Several sites may need it: see :func:`release_forwarding`.

    Raises:
        NetworkError: this machine has no IPv6.
    """
    if family == "ip6":
        _enable_6(keeper)
    elif _FORWARDING_4.read_text().strip() != "1":
        keeper.write_text(_FORWARDING_4.read_text())
        _FORWARDING_4.write_text("1")


def release_forwarding(family: Family, keeper: Path, prefix: str) -> None:
    """Restore forwarding to what it was, unless an nft table with ``prefix`` still needs it."""
    tables = run_tool("nft", "list", "tables", family)
    if not keeper.exists() or any(line.split()[-1].startswith(prefix) for line in tables):
        return
    if family == "ip6":
        _restore_6(keeper)
    else:
        _FORWARDING_4.write_text(keeper.read_text())
    keeper.unlink()


def _enable_6(keeper: Path) -> None:
    """Have this machine forward IPv6, and go on as a host where it is one.

    A device that forwards ignores router advertisements, and the kernel drops the default routes
    that it has learned from them, unless ``accept_ra`` is 2 (ip-sysctl.rst of the kernel).
    """
    try:
        if _FORWARDING_6.read_text().strip() == "1":
            return
    except OSError as error:
        raise NetworkError("this machine has no IPv6") from error
    was = {name: _devices_with(name, "1") for name in ("forwarding", "accept_ra")}
    keeper.write_text(json.dumps(was))
    _set_6("accept_ra", was["accept_ra"], "2")
    _FORWARDING_6.write_text("1")


def _restore_6(keeper: Path) -> None:
    try:
        was = json.loads(keeper.read_text())
        routers, listeners = was["forwarding"], was["accept_ra"]
    except (ValueError, KeyError, TypeError):  # cut short: nothing was changed yet
        return
    _FORWARDING_6.write_text("0")
    _set_6("forwarding", routers, "1")  # which has just gone with the others'
    still = set(_devices_with("accept_ra", "2"))
    _set_6("accept_ra", [device for device in listeners if device in still], "1")


def _devices_with(name: str, value: str) -> list[str]:
    """Return the devices, ``default`` among them, for which a setting has a value."""
    found = []
    for path in _SETTINGS_6.glob(f"*/{name}"):
        with suppress(OSError):  # it may go while we look
            if path.parent.name != "all" and path.read_text().strip() == value:
                found.append(path.parent.name)
    return found


def _set_6(name: str, devices: list[str], value: str) -> None:
    for device in devices:
        with suppress(OSError):
            (_SETTINGS_6 / device / name).write_text(value)
