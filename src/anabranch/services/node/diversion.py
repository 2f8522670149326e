"""Taking GIST's queries off a plain Linux router's path: diverted, not copied.

nft's tproxy hands packets for other hosts' UDP port 270 to our transparent socket; a route of its
own makes the kernel deliver them. What a node does not want it sends on, in the sender's name.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from anabranch.host.network import NetworkError, run_tool
from anabranch.services.signalling.gist.options import PORT

TABLE = "anabranch_gist"
MARK = 0x10E  # of diverted packets, within this mask only
_ROUTES = "270"  # routing table, and priority of the rule that leads there
_RULE = ("priority", _ROUTES, "fwmark", f"{MARK:#x}/{MARK:#x}", "lookup", _ROUTES)
_MATCH = f"meta l4proto udp udp dport {PORT} fib daddr type != {{ local, multicast, broadcast }}"


def divert() -> None:
    """Begin to divert, in the network namespace of this process; what was left over goes first.

    Raises:
        NetworkError: not root, or the kernel has no tproxy.
    """
    undo()
    rules = "\n".join(
        f"meta nfproto {family} {_MATCH} tproxy {ip} to :{PORT} meta mark set {MARK:#x} accept"
        for family, ip in (("ipv4", "ip"), ("ipv6", "ip6"))
    )
    chain = (
        f"chain divert {{\ntype filter hook prerouting priority mangle; policy accept;\n{rules}\n}}"
    )
    try:
        run_tool("nft", "-f", "-", stdin=f"table inet {TABLE} {{\n{chain}\n}}\n")
        run_tool("ip", "rule", "add", *_RULE)
        run_tool("ip", "route", "add", "local", "default", "dev", "lo", "table", _ROUTES)
        with suppress(NetworkError):  # a machine without IPv6
            run_tool("ip", "-6", "rule", "add", *_RULE)
            run_tool("ip", "-6", "route", "add", "local", "default", "dev", "lo", "table", _ROUTES)
    except NetworkError:
        undo()
        raise


def undo() -> None:
    """Stop diverting; nothing to undo is fine."""
    with suppress(NetworkError):
        run_tool("nft", "delete", "table", "inet", TABLE)
    for family in ("-4", "-6"):
        with suppress(NetworkError):
            run_tool("ip", family, "rule", "del", *_RULE)
        with suppress(NetworkError):
            run_tool("ip", family, "route", "flush", "table", _ROUTES)


@contextmanager
def diverting() -> Iterator[None]:
    """Divert while the block runs. Raises as :func:`divert`."""
    divert()
    try:
        yield
    finally:
        undo()
