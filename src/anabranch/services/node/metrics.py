"""A node's figures for Prometheus, by HTTP. Figures are read while the event loop goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from anabranch.services.errors import ServicesError
from anabranch.services.node.service import ServiceNode
from anabranch.services.runtime import NodeRuntime


class MetricsPortError(ServicesError):
    """Figures cannot be offered at that address."""


class NodeMetrics(Collector):
    """What a node and its sandboxes have to report; docs/protocols/services.md lists it."""

    def __init__(self, node: ServiceNode, runtime: NodeRuntime) -> None:
        self._node = node
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        figures = self._node.figures() | self._runtime.figures()
        for name, (text, value) in figures.items():
            if name.endswith("_total"):
                yield CounterMetricFamily(f"anabranch_{name}", text, value=value)
            else:
                yield GaugeMetricFamily(f"anabranch_{name}", text, value=value)
        answered = CounterMetricFamily(
            "anabranch_service_requests", "Requests that were acted on", labels=["method", "status"]
        )
        for (method, status), count in self._node.answered.copy().items():
            answered.add_metric([method, str(status)], count)
        yield answered
        refused = CounterMetricFamily(
            "anabranch_service_refusals", "Requests turned away at first sight", labels=["status"]
        )
        for status, count in self._node.turned_away.copy().items():
            refused.add_metric([str(status)], count)
        yield refused


@contextmanager
def offered(address: str, port: int, node: ServiceNode, runtime: NodeRuntime) -> Iterator[int]:
    """Offer the figures at ``http://address:port/metrics`` while the block runs; give the port.

    Raises:
        MetricsPortError: the port is taken, or the address is not this machine's.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeMetrics(node, runtime))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise MetricsPortError(f"metrics at {address}:{port}: {error.strerror}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
