"""The peer: os-ken's learning switch, as a process of its own: prints its port, then serves.

``python -m anabranch.app.bench.fabric.osken_controller PORT``. The application is the usual one of
os-ken's (and ryu's) books, ``simple_switch_13``, except that it reads the Ethernet header only.
"""

import sys
from typing import Any

from os_ken import cfg
from os_ken.base.app_manager import AppManager, OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib import hub
from os_ken.lib.packet.ethernet import ethernet
from os_ken.ofproto import ofproto_v1_3


class LearningSwitch(OSKenApp):  # type: ignore[misc]
    """Learns where addresses are, and makes a flow entry for every pair that talks."""

    OFP_VERSIONS = (ofproto_v1_3.OFP_VERSION,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ports: dict[str, int] = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)  # type: ignore[untyped-decorator]
    def connected(self, event: Any) -> None:
        """Send what no entry matches to the controller."""
        datapath = event.msg.datapath
        parser, protocol = datapath.ofproto_parser, datapath.ofproto
        to_controller = parser.OFPActionOutput(protocol.OFPP_CONTROLLER, protocol.OFPCML_NO_BUFFER)
        self._add(datapath, 0, parser.OFPMatch(), [to_controller])

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def packet_in(self, event: Any) -> None:
        """Learn the source; if the destination is known, make an entry; send the packet on."""
        message = event.msg
        datapath = message.datapath
        parser, protocol = datapath.ofproto_parser, datapath.ofproto
        in_port = message.match["in_port"]
        header, _, _ = ethernet.parser(message.data)
        self.ports[header.src] = in_port
        out_port = self.ports.get(header.dst, protocol.OFPP_FLOOD)
        actions = [parser.OFPActionOutput(out_port)]
        if out_port != protocol.OFPP_FLOOD:
            match = parser.OFPMatch(in_port=in_port, eth_dst=header.dst, eth_src=header.src)
            self._add(datapath, 1, match, actions)
        datapath.send_msg(
            parser.OFPPacketOut(
                datapath=datapath,
                buffer_id=protocol.OFP_NO_BUFFER,
                in_port=in_port,
                actions=actions,
                data=message.data,
            )
        )

    def _add(self, datapath: Any, priority: int, match: Any, actions: list[Any]) -> None:
        parser, protocol = datapath.ofproto_parser, datapath.ofproto
        apply = parser.OFPInstructionActions(protocol.OFPIT_APPLY_ACTIONS, actions)
        datapath.send_msg(
            parser.OFPFlowMod(
                datapath=datapath,
                priority=priority,
                match=match,
                instructions=[apply],
                idle_timeout=10 if priority else 0,
            )
        )


def main(port: int) -> None:
    """Serve for ever."""
    cfg.CONF(
        args=["--ofp-listen-host=127.0.0.1", f"--ofp-tcp-listen-port={port}"], project="os_ken"
    )
    manager = AppManager.get_instance()
    manager.load_apps(["os_ken.controller.ofp_handler", __name__])
    contexts = manager.create_contexts()
    services = manager.instantiate_apps(**contexts)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    hub.joinall(services)


if __name__ == "__main__":
    main(int(sys.argv[1]))
