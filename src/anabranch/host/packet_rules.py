"""Rules of nft inside namespaces: who may use a tunnel, on which ports something arrived.

They go with their namespace. What blocks does so for milliseconds: call it in a thread.
"""

import json
from ipaddress import IPv4Address

from anabranch.host.network import VXLAN_PORT, run_tool
from anabranch.host.process import run_command

_HEARD = "anabranch_heard"
_GUARD = "anabranch_guard"


def guard_tunnel(
    namespace: str, device: str, *, tcp_port: int, from_address: IPv4Address | None
) -> None:
    """Let only a site's own traffic in by the tunnel of a namespace: VXLAN, one TCP port, answers.

    Args:
        device: the tunnel's.
        tcp_port: where this end listens.
        from_address: who may connect to it; None: whoever is at the far ends.
    """
    who = "" if from_address is None else f"ip saddr {from_address} "
    run_tool("nft", "-f", "-", namespace=namespace, stdin=f"""
table ip {_GUARD}
delete table ip {_GUARD}
table ip {_GUARD} {{
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname != "{device}" udp dport {VXLAN_PORT} drop
    iifname != "{device}" accept
    ct state established accept
    udp dport {VXLAN_PORT} accept
    {who}tcp dport {tcp_port} accept
    icmp type echo-request accept
    drop
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    iifname "{device}" oifname "{device}" udp dport {VXLAN_PORT} accept
  }}
}}
""")  # fmt: skip


def watch_ports(
    namespace: str, device: str, ports: tuple[int, int], *, forget_after_s: int
) -> None:
    """Have the kernel remember on which UDP ports of a device something arrives.

    Args:
        namespace: where the device is; the table goes with it.
        device: the device that packets come in by.
        ports: first and last port.
        forget_after_s: seconds of silence after which a port is forgotten.
    """
    run_tool("nft", "-f", "-", namespace=namespace, stdin=f"""
table ip {_HEARD} {{
  set ports {{ type inet_service; flags dynamic,timeout; timeout {forget_after_s}s; size 65535; }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname "{device}" udp dport {ports[0]}-{ports[1]} update @ports {{ udp dport }}
  }}
}}
""")  # fmt: skip


async def heard_ports(namespace: str) -> frozenset[int]:
    """Return the ports that :func:`watch_ports` remembers.

    Raises:
        ProcessError: the namespace or its table is gone.
    """
    text = await run_command("nft", "-j", "list", "set", "ip", _HEARD, "ports", netns=namespace)
    return frozenset(
        int(element["elem"]["val"])
        for item in json.loads(text)["nftables"]
        for element in item.get("set", {}).get("elem", ())
    )
