"""A node's figures, asked for as Prometheus does."""

from pathlib import Path

import httpx
import pytest

from anabranch.services.controller.users import User
from anabranch.services.node.metrics import MetricsPortError, offered
from anabranch.services.node.service import NodeOptions, ServiceNode
from anabranch.services.node.web import Web
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings


@pytest.fixture
async def node(tmp_path: Path) -> tuple[ServiceNode, NodeRuntime]:
    runtime = NodeRuntime(RuntimeSettings(tmp_path, "test"), LinuxPlane("test"))
    options = NodeOptions("test", tmp_path / "cache")
    users: dict[str, User] = {}
    return ServiceNode(options, users, runtime, Web(options.cache)), runtime


def figures(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_figures_are_those_of_the_node(node: tuple[ServiceNode, NodeRuntime]) -> None:
    running, runtime = node
    running.answered["PROBE", 200] += 3
    running.turned_away[401] += 1
    with offered("127.0.0.1", 0, running, runtime) as port:
        said = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        found = figures(said.text)
        assert found['anabranch_service_requests_total{method="PROBE",status="200"}'] == 3
        assert found['anabranch_service_refusals_total{status="401"}'] == 1
        assert found["anabranch_gist_sessions"] == 0
        assert found["anabranch_gist_received_total"] == 0
        assert found["anabranch_sandboxes"] == 0
        with (
            pytest.raises(MetricsPortError, match="in use"),
            offered("127.0.0.1", port, running, runtime),
        ):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)


async def test_an_address_that_is_elsewhere(node: tuple[ServiceNode, NodeRuntime]) -> None:
    with (
        pytest.raises(MetricsPortError, match=r"192\.0\.2\.1:9270"),
        offered("192.0.2.1", 9270, *node),
    ):
        pass
