"""Service nodes beside a real switch: figure 8.2 of seed 003, and 8.3.

Everything is started by the command line: the controller, the nodes, the signed message.
"""

import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from tests.lab.switch_nodes import MONITOR, PROVIDER, SANDBOXES, SOURCES, USER, SwitchNodes
from tests.lab.two_bridges import run
from tests.services.test_keepalive import notify
from tests.waiting import wait_until

from anabranch.services import modules

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
FLOWS = len(SOURCES)


@pytest.fixture
async def lab() -> AsyncIterator[SwitchNodes]:
    made = SwitchNodes()
    try:
        await made.build()
        for number in (1, 2):
            made.start(number)
        yield made
    finally:
        await made.close()
    names = {path.name for path in Path("/run/netns").iterdir()}
    assert not {name for name in names if made.node(1)[:-1] in name}


def settled(lab: SwitchNodes, total: int) -> dict[str, int]:
    """Return what the nodes have counted, once it is ``total``, or after a few seconds."""
    until = time.monotonic() + 5
    while sum((counted := lab.counted()).values()) != total and time.monotonic() < until:
        time.sleep(0.1)
    return counted


def echo(directory: Path) -> Path:
    """Write a module with a server (RFC 862)."""
    source = directory / "echo"
    source.mkdir()
    (source / "module.toml").write_text(
        'name = "echo"\nversion = "1.0.0"\nentry = "echo:Echo"\n[resources]\nports = [7]\n'
    )
    (source / "echo.py").write_text("""
import socket, threading
from anabranch.services.module import Module
class Echo(Module):
    def start(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("", 7))
        threading.Thread(target=self.serve, daemon=True).start()
    def serve(self):
        while True:
            self.socket.sendto(*self.socket.recvfrom(2000))
    def stop(self):
        self.socket.close()
""")
    return source


async def test_from_the_signed_message_to_a_node_that_dies(
    lab: SwitchNodes, tmp_path: Path
) -> None:
    first, second = lab.node(1), lab.node(2)
    assert lab.install() == [first, second], "signalling visits both in turn"

    # spread, by the controller first, then without it
    assert lab.send(1) == FLOWS
    assert lab.questions() == FLOWS
    assert lab.send(20) == 20 * FLOWS
    assert lab.questions() == FLOWS, "later packets are switched without the controller"
    counted = settled(lab, 21 * FLOWS)
    assert counted.keys() == {first, second}
    assert sum(counted.values()) == 21 * FLOWS
    assert all(count % 21 == 0 and count for count in counted.values()), "a flow stays on a node"

    # what nobody claims
    assert lab.send(2, port=5061) == 2 * FLOWS
    assert settled(lab, 21 * FLOWS) == counted

    # a module that answers in the provider's name, and one with a server of its own, on one node
    lab.offer(Path(modules.__file__).parent / "keepalive")
    here = ("--filter", "udp:5062", "--node-id", second)
    assert lab.install("NetServ.apps.KeepAlive_1.0.0", "keepalive", *here) == [second]
    agent = lab.asking(PROVIDER, 5062)
    for number in range(3):
        agent.send(notify(number))
        assert agent.recv(2000).startswith(b"SIP/2.0 200 OK")
    agent.close()
    lab.offer(echo(tmp_path))
    assert lab.install("echo_1.0.0", "echo", "--node-id", second) == [second]
    caller = lab.asking(SANDBOXES[2], 7)
    caller.send(b"who is there")
    assert caller.recv(100) == b"who is there"
    caller.close()

    # one dies: its flows are the other's
    seen = lab.counted()[second]  # with the keep-alives: they are jane's packets, too
    asked = lab.questions()
    lab.kill(1)
    wait_until(lambda: first not in lab.reached(), "nobody noticed")
    assert lab.send(5) == 5 * FLOWS
    assert settled(lab, seen + 5 * FLOWS) == {second: seen + 5 * FLOWS}
    assert lab.questions() == asked, "entries are replaced, not asked for anew"

    # it comes back in a stage of its own: every flow passes both, in turn
    lab.start(1, stage="before")
    assert lab.install() == [second, first], "stages come in the order of their names"
    before = lab.counted()
    assert lab.send(10) == 10 * FLOWS
    after = settled(lab, sum(before.values()) + 20 * FLOWS)
    assert {name: after[name] - before[name] for name in after} == {
        first: 10 * FLOWS,
        second: 10 * FLOWS,
    }

    # without a controller what is there goes on; a new one knows all within seconds
    lab.end_controller()
    assert lab.send(3) == 3 * FLOWS
    lab.start_controller()
    wait_until(lambda: lab.reached() == {first: True, second: True})
    before = lab.counted()
    assert lab.send(3) == 3 * FLOWS
    assert lab.questions() == FLOWS, "it has led them anew"
    assert settled(lab, sum(before.values()) + 6 * FLOWS) == {
        name: count + 3 * FLOWS for name, count in before.items()
    }

    # one ends while packets pass
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(lab.send, 100, pause_s=0.02)
        time.sleep(0.5)
        lab.stop(1)
        assert not sent.done()
        assert sent.result() == 100 * FLOWS
    assert lab.command("remove", MONITOR, USER).returncode == 0
    assert lab.send(5) == 5 * FLOWS
    questions = [lab.questions() for _ in range(2)]
    assert all(one == other for one, other in pairwise(questions))
    assert "svc" not in run("ip", "-n", lab.netns("n1"), "-br", "link").replace("svc0", "")
