"""A site's nodes as service nodes: users by the API, modules by real messages, and no trace."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.services import modules
from anabranch.services.archive import pack
from anabranch.services.keys import PrivateKey

pytestmark = pytest.mark.lab
MONITOR = "NetServ.apps.NetMonitor_1.0.0"
LEAVES = ("leaf1", "leaf2")


@pytest.fixture
def site() -> Iterator[SiteProcess]:
    with running_site(services=json.dumps({"enabled": True, "nodes": LEAVES})) as made:
        yield made


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a signed NetMonitor; give its port and the key's file."""
    key = PrivateKey.generate()
    key.store(tmp_path / "key.pem")
    signed = pack(Path(modules.__file__).parent / "netmonitor").sign("jane", key)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "monitor.abm").write_bytes(bytes(signed))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield str(server.server_port), tmp_path / "key.pem"
        server.shutdown()
        thread.join()


def module(key: Path, *words: str) -> str:
    program = str(Path(sys.executable).with_name("anabranch"))
    done = subprocess.run(
        (program, "module", *words, "--user", "jane", "--key", str(key)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def service(site: SiteProcess, *words: str) -> str:
    program = str(Path(sys.executable).with_name("anabranch"))
    done = subprocess.run(
        (program, "service", *words), env=os.environ | site.environment | {"COLUMNS": "200"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def left_over(name: str) -> list[str]:
    text = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if f"ab-svc-{name}-" in line]


def nodes(site: SiteProcess) -> dict[str, dict]:
    return {each["name"]: each for each in site.api("GET", "/api/services").json()["nodes"]}


def test_a_module_on_a_node_of_the_site(site: SiteProcess, archive: tuple[str, Path]) -> None:
    port, key = archive
    wait_until(lambda: all(each["answers"] for each in nodes(site).values()), 20)
    assert nodes(site).keys() == set(LEAVES)
    at = nodes(site)["leaf1"]["address"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((at, 270))
        here = asking.getsockname()[0]
    user = {
        "public_key": str(PrivateKey.load(key).public), "address": "10.99.7.1",
        "listen_ports": ["80", "5060-5062"], "filter_prefixes": [f"{at}/32"],
    }  # fmt: skip
    public = key.with_suffix(".pub")
    public.write_text(user["public_key"])
    said = service(
        site, "allow", "jane", "--key", str(public), "--address", "10.99.7.1",
        "--port", "80", "--port", "5060-5062", "--prefix", f"{at}/32",
    )  # fmt: skip
    assert "jane may install" in said
    (jane,) = site.api("GET", "/api/services/users").json()
    assert jane | user == jane
    url = f"http://{here}:{port}/monitor.abm"
    module(key, "install", MONITOR, at, "--url", url, "--filter", "udp:9", "--filter-dst", at)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        for _ in range(20):
            sending.sendto(b"x", (at, 9))

    def found() -> dict:
        (one,) = nodes(site)["leaf1"]["modules"]
        return one

    wait_until(lambda: found()["figures"].get("counted") == "20", 5)
    assert (found()["user"], found()["state"]) == ("jane", "running")
    assert nodes(site)["leaf2"]["modules"] == []
    metrics = site.api("GET", "/metrics").text
    labels = f'module="{MONITOR}",node="leaf1",user="jane"'
    assert f"anabranch_service_module_packets_total{{{labels}}} 20.0" in metrics
    assert MONITOR in service(site, "list")
    # it is killed and begins anew, without modules: who wants them renews them
    pid = nodes(site)["leaf1"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: nodes(site)["leaf1"]["answers"] and nodes(site)["leaf1"]["pid"] != pid, 20)
    assert nodes(site)["leaf1"]["modules"] == []
    module(key, "install", MONITOR, at, "--url", url, "--filter", "udp:9", "--filter-dst", at)
    assert found()["state"] == "running"
    place = f"/api/services/nodes/leaf1/modules/jane/{MONITOR}"
    assert site.api("DELETE", place).status_code == 204
    assert nodes(site)["leaf1"]["modules"] == []
    assert site.api("DELETE", place).status_code == 503
    assert "jane may install nothing more" in service(site, "forbid", "jane")
    assert "not known here" in module_refused(key, at)
    assert {"service:leaf1", "service:leaf2"} <= site.api("GET", "/api/site").json()[
        "children"
    ].keys()
    site.stop()
    assert left_over(site.name) == []


def test_nothing_is_left_of_a_site_and_nodes_that_were_killed(site: SiteProcess) -> None:
    wait_until(lambda: all(each["answers"] for each in nodes(site).values()), 20)
    pids = [each["pid"] for each in nodes(site).values()]
    assert left_over(site.name)  # places for users who may come
    site.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert site.command("down").returncode == 0
    assert left_over(site.name) == []


def module_refused(key: Path, at: str) -> str:
    program = str(Path(sys.executable).with_name("anabranch"))
    done = subprocess.run(
        (program, "module", "probe", at, "--user", "jane", "--key", str(key)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stdout
