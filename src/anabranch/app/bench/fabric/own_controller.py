"""Our controller with its reactive hot path, as a process of its own.

``python -m anabranch.app.bench.fabric.own_controller PORT`` listens on loopback, prints a line, and
gives the one switch that comes what sends new flows up.
"""

import asyncio
import sys

from anabranch.app.bench.fabric.hosts import SOURCES, TARGETS, source_mac, target_mac
from anabranch.app.bench.fabric.load import DPID, SOURCE_PORT, TARGET_PORT
from anabranch.fabric.controller import Controller
from anabranch.fabric.host_services.rules import UNICAST_MISS_COOKIE, UNICAST_MISS_PRIORITY
from anabranch.fabric.model import Host, Network, PortRef
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.oxm import ETH_IPV4, Match
from anabranch.fabric.pipeline import CLASSIFY, HOSTS
from anabranch.fabric.reactive import ReactiveForwarder
from anabranch.fabric.tables import INTENT_COOKIE, Rule, Tables

NAME = "switch"


def known_network() -> Network:
    """Return one switch and all hosts."""
    hosts = {}
    for count, mac_of, port_no in (
        (SOURCES, source_mac, SOURCE_PORT),
        (TARGETS, target_mac, TARGET_PORT),
    ):
        for number in range(count):
            mac = mac_of(number).hex(":")
            hosts[mac] = Host(mac, PortRef(NAME, port_no))
    return Network(switches={NAME: DPID}, hosts=hosts)


def tables() -> Tables:
    """Return the least that sends new flows to the controller: the tables before HOSTS passed."""
    miss = Rule(
        HOSTS,
        UNICAST_MISS_PRIORITY,
        Match(eth_type=ETH_IPV4),
        (Output(PORT_CONTROLLER, 0xFFFF),),
        UNICAST_MISS_COOKIE,
    )
    passed = Rule(CLASSIFY, 0, Match(), (), INTENT_COOKIE, goto_table=HOSTS)
    return Tables(rules=frozenset((miss, passed)))


async def _run(port: int) -> None:
    forwarder = ReactiveForwarder()
    forwarder.update(known_network())
    controller = Controller(lambda _: None, names={DPID: NAME}, hot=forwarder.hot)
    await controller.listen_tcp("127.0.0.1", port)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await controller.apply({NAME: tables()})
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1])))
