"""A signed message installs a module on both nodes of a path, and packets pass both."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.inside import socket_in
from tests.lab.service_path import DESTINATION, SENDER, WEB_PORT, ServicePath

from anabranch.services import modules
from anabranch.services.archive import pack

pytestmark = pytest.mark.lab
MONITOR = "NetServ.apps.NetMonitor_1.0.0"
PACKETS = 20


@pytest.fixture
def path(tmp_path: Path) -> Iterator[ServicePath]:
    made = ServicePath(tmp_path)
    try:
        made.build(sandboxes=True)
        yield made
    finally:
        made.close()


def test_from_the_command_line_to_the_packets(path: ServicePath) -> None:
    archive = pack(Path(modules.__file__).parent / "netmonitor").sign("janedoe", path.key)
    (path.web / "monitor.abm").write_bytes(bytes(archive))
    url = f"http://{SENDER}:{WEB_PORT}/monitor.abm"
    done = path.command("install", MONITOR, str(DESTINATION), "--url", url, "--filter", "udp:5060")
    assert done.returncode == 0, done.stderr + done.stdout
    # packets to the sender, which signalled: on their way back from the destination
    there = socket_in(path.netns("d"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with there:
        for _ in range(PACKETS):
            there.sendto(b"hello", (str(SENDER), 5060))
    deadline = time.monotonic() + 5
    while True:
        said = path.command("probe", str(DESTINATION), MONITOR, "--json")
        # b counts them by the TTL that they were sent with, a two routers later
        counts = [f'"{DESTINATION}_{SENDER}_{ttl}": "{PACKETS}"' for ttl in (62, 64)]
        if all(count in said.stdout for count in counts) or time.monotonic() > deadline:
            break
    assert all(count in said.stdout for count in counts), said.stdout + said.stderr
    assert path.command("remove", MONITOR, str(DESTINATION)).returncode == 0
