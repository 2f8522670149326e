"""The fabric's figures for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from anabranch.fabric.fabric import Fabric


def fabric_metrics(fabric: Fabric) -> Iterator[Metric]:
    """Yield what a fabric in this process has to report."""
    yield from _network(fabric)
    yield from _controller(fabric)
    done = CounterMetricFamily(
        "anabranch_fabric_contained",
        "What was done for hosts, and what was refused",
        labels=["what"],
    )
    for what, count in fabric.counters().items():
        done.add_metric([what], count)
    yield done


def _network(fabric: Fabric) -> Iterator[Metric]:
    up = GaugeMetricFamily("anabranch_link_up", "1 if it carries packets", labels=["src", "dst"])
    load = GaugeMetricFamily(
        "anabranch_link_load_mbit", "Mbit/s over the last interval", labels=["src", "dst"]
    )
    network = fabric.network()
    for link, info in network.links.items():
        ends = [str(link.src), str(link.dst)]
        up.add_metric(ends, float(info.up))
        load.add_metric(ends, info.load_mbit)
    yield up
    yield load
    yield GaugeMetricFamily(
        "anabranch_fabric_hosts", "Hosts and VMs known", value=len(network.hosts)
    )
    plan = fabric.plan()
    yield GaugeMetricFamily(
        "anabranch_fabric_flows", "Flows that are carried", value=len(plan.trees)
    )
    yield GaugeMetricFamily(
        "anabranch_fabric_flows_unreachable",
        "Flows with an egress that nothing leads to",
        value=len(plan.unreachable),
    )
    refused = {name for failure in fabric.failures() for name in failure.hit}
    yield GaugeMetricFamily(
        "anabranch_fabric_flows_refused",
        "Flows and taps that a switch refuses rules of",
        value=len(refused),
    )
    yield GaugeMetricFamily(
        "anabranch_fabric_links_unprotected",
        "Links in use that have no bypass",
        value=len(plan.unprotected),
    )


def _controller(fabric: Fabric) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "anabranch_switch_connected", "1 if its controller has it", labels=["switch"]
    )
    rules = GaugeMetricFamily("anabranch_switch_rules", "Flow entries it holds", labels=["switch"])
    for name, state in fabric.switches().items():
        connected.add_metric([name], float(state.connected))
        if state.rules is not None:
            rules.add_metric([name], state.rules)
    yield connected
    yield rules
    controller = fabric.controller
    for name, what, counts in (
        ("protocol_errors", "Connections ended by nonsense", controller.protocol_errors),
        ("refusals", "Requests that a switch refused", controller.refusals),
        ("packet_ins_dropped", "Packets held back, too many", controller.packet_ins_dropped),
        ("duplicates", "Connections with a taken datapath id", controller.duplicates),
    ):
        family = CounterMetricFamily(f"anabranch_switch_{name}", what, labels=["switch"])
        for switch, count in counts.items():
            family.add_metric([switch], count)
        yield family
