"""ActiveCDN on real nodes (seed 003, 7.1): nginx is the origin, curl are the users.

origin s --- node a --- plain router r --- node b --- user d
              +--- user e

Users e and node a are in Paris, users d and node b in Tokyo.
"""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.lab.service_path import DESTINATION, NODE_A, NODE_B, SENDER, WEB_PORT, WholeNodes
from tests.lab.two_bridges import join, run
from tests.services.films import duration, make_film
from tests.waiting import wait_until

from anabranch.services import modules
from anabranch.services.archive import pack

pytestmark = pytest.mark.lab
CACHES = {"a": "10.9.1.1", "b": "10.9.2.1"}
ORIGIN = f"http://{SENDER}:8080"
TABLE = f"""10.77.9.0/24, 48.86, 2.35, Paris
{NODE_A}/32, 48.86, 2.35, Paris
10.77.4.0/24, 35.68, 139.69, Tokyo
{NODE_B}/32, 35.68, 139.69, Tokyo
"""
NGINX = """
daemon off; pid {d}/nginx.pid; error_log {d}/nginx-error.log; worker_processes 1;
events {{}}
http {{
  types {{ video/mp4 mp4; }}
  client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3;
  uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;
  log_format plain '$remote_addr $request_uri $status';
  server {{  # for users: it asks where they are to go
    listen {address}:80;
    access_log off;
    location / {{
      proxy_pass http://127.0.0.1:8088;
      proxy_set_header X-Real-IP $remote_addr;
      error_page 502 504 = @alone;
    }}
    location @alone {{ root {d}/site; }}
    location /origin/ {{ internal; alias {d}/site/; }}
  }}
  server {{ listen {address}:8080; root {d}/site; access_log {d}/nodes.log plain; }}  # for nodes
}}
"""


class CdnPath(WholeNodes):
    def user(self, name: str) -> dict[str, Any]:
        return {"address": CACHES[name], "listen_ports": ["80"], "transcodings": 1,
                "filter_prefixes": [f"{SENDER}/32"]}  # fmt: skip

    def extend(self) -> None:
        join((self.netns("a"), "side"), (self.add_host("e"), "left"))
        run("ip", "-n", self.netns("a"), "addr", "add", "10.77.9.1/24", "dev", "side")
        run("ip", "-n", self.netns("e"), "addr", "add", "10.77.9.2/24", "dev", "left")
        ways = {
            "s": {"10.77.9.0/24": NODE_A, "10.9.1.1": NODE_A, "10.9.2.1": NODE_A},
            "a": {"10.9.2.1": "10.77.2.2"},
            "r": {"10.9.1.1": "10.77.2.1", "10.9.2.1": NODE_B, "10.77.9.0/24": "10.77.2.1"},
            "b": {"10.9.1.1": "10.77.3.1", "10.77.9.0/24": "10.77.3.1"},
            "d": {"10.9.1.1": "10.77.4.1", "10.9.2.1": "10.77.4.1"},
            "e": {"default": "10.77.9.1"},
        }
        for name, routes in ways.items():
            for there, via in routes.items():
                run("ip", "-n", self.netns(name), "route", "add", there, "via", via)
        archive = pack(Path(modules.__file__).parent / "activecdn").sign("janedoe", self.key)
        self.web.mkdir()
        (self.web / "cdn.abm").write_bytes(bytes(archive))

    def get(self, name: str, target: str, *more: str) -> "Got":
        """Have a user get something, and follow where the origin sends it."""
        out = self.directory / f"got-{time.monotonic_ns()}"
        done = subprocess.run(
            ("ip", "netns", "exec", self.netns(name), "curl", "-sSL", "-m", "60", "-o", str(out),
             "-w", "%{http_code} %{num_redirects} %{url_effective}", *more,
             f"http://{SENDER}{target}"),
            capture_output=True, text=True, timeout=70, check=True,
        )  # fmt: skip
        code, redirects, url = done.stdout.split()
        return Got(int(code), int(redirects), url, out)

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            ("ip", "netns", "exec", self.netns("s"), "curl", "-sS", "http://127.0.0.1:8088/"),
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return json.loads(done.stdout) if done.returncode == 0 else {"nodes": []}

    def has_nodes(self, *names: str) -> bool:
        return sorted(each["node"][0] for each in self.status()["nodes"]) == list(names)

    def probe(self, name: str = "*") -> list[dict[str, str]]:
        """Return what the nodes on the way to user d say, the nearest to the origin first."""
        said = self.command("probe", str(DESTINATION), name, "--json")
        return [hop["details"] for hop in json.loads(said.stdout)]

    def fetched(self, target: str) -> list[str]:
        """Return which nodes have fetched something from the origin."""
        lines = (self.directory / "nodes.log").read_text().splitlines()
        return [line.split()[0] for line in lines if line.split()[1:] == [target, "200"]]

    @contextmanager
    def nginx(self) -> Iterator[None]:
        site = self.directory / "site"
        conf = self.directory / "nginx.conf"
        conf.write_text(NGINX.format(d=self.directory, address=SENDER))
        (self.directory / "nodes.log").touch()
        site.mkdir()
        (site / "large.bin").write_bytes(os.urandom(5_000_000))
        (site / "page.html").write_text("<p>the page")
        (site / "a page.html").write_text("<p>a page")
        make_film(site / "film.mp4", 2)
        make_film(site / "clip.mp4", 1, size="64x64", sound=False)
        process = subprocess.Popen(
            ("ip", "netns", "exec", self.netns("s"), "nginx", "-c", str(conf))
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)

    @contextmanager
    def provider(self, ttl: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        table = self.directory / "locations.csv"
        table.write_text(TABLE)
        process = self.provide(
            "cdn", "--url", f"http://{SENDER}:{WEB_PORT}/cdn.abm", "--archive",
            str(self.web / "cdn.abm"), "--origin", ORIGIN, "--locations", str(table),
            "--clip", "/clip.mp4", "--videos", "/film*.mp4", "--wait", "50", "--ttl", str(ttl),
            *more,
        )  # fmt: skip
        try:
            wait_until(lambda: "regions" in self.status())
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)


class Got:
    def __init__(self, status: int, redirects: int, url: str, path: Path) -> None:
        self.status = status
        self.redirects = redirects
        self.url = url
        self.path = path

    @property
    def from_node(self) -> str | None:
        return next((name for name, at in CACHES.items() if f"//{at}/" in self.url), None)

    def digest(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def path() -> Iterator[CdnPath]:
    with tempfile.TemporaryDirectory(prefix="ab-cdn-") as name:
        Path(name).chmod(0o755)
        made = CdnPath(Path(name))
        try:
            made.build()
            with made.nginx():
                yield made
        finally:
            made.close()


def test_users_are_sent_to_the_cache_near_them(path: CdnPath) -> None:
    whole = hashlib.sha256((path.directory / "site" / "large.bin").read_bytes()).hexdigest()
    with path.provider(ttl=60) as provider:
        first = path.get("e", "/large.bin")  # nobody is near Paris: the origin serves it
        assert (first.status, first.redirects, first.digest()) == (200, 0, whole)
        wait_until(lambda: path.has_nodes("a"))
        assert path.get("e", "/large.bin").from_node == "a"
        tokyo = path.get("d", "/a%20page.html?x=1")  # and Paris is not near Tokyo
        assert (tokyo.redirects, tokyo.path.read_text()) == (0, "<p>a page")
        wait_until(lambda: path.has_nodes("a", "b"))
        for name, node in (("d", "b"), ("e", "a"), ("d", "b")):
            got = path.get(name, "/large.bin")
            assert (got.from_node, got.digest()) == (node, whole)
        assert sorted(path.fetched("/large.bin")) == [CACHES["a"], CACHES["b"]]
        named = path.get("e", "/a%20page.html?x=1")
        assert (named.from_node, named.path.read_text()) == ("a", "<p>a page")
        part = path.get("d", "/large.bin", "-r", "1000-1999")
        data = (path.directory / "site" / "large.bin").read_bytes()
        assert (part.status, part.path.read_bytes()) == (206, data[1000:2000])
        film = path.get("d", "/film.mp4")  # ffmpeg puts the clip before it, on the node
        assert film.from_node == "b"
        assert duration(film.path) == pytest.approx(3.0, abs=0.25)
        nearer, nearest = path.probe("NetServ.apps.ActiveCdn_1.0.0")
        assert nearest["serves"] == f"{CACHES['b']}:80"
        assert nearest["answers.made"] == "1"
        assert nearer["origin_requests"] == "2"
        said = path.command("probe", str(DESTINATION), "--what", "building-blocks,policy", "--json")
        for hop in json.loads(said.stdout):
            assert " ffmpeg_" in hop["details"]["building-blocks"]
            assert hop["details"]["transcodings"] == "1"
        provider.send_signal(signal.SIGTERM)
        assert provider.wait(30) == 0
    alone = path.get("d", "/large.bin")  # nobody to ask: nginx serves by itself
    assert (alone.status, alone.redirects, alone.digest()) == (200, 0, whole)
    assert [each["modules"] for each in path.probe()] == ["none", "none"]


def test_connections_to_the_site_are_answered_on_the_way(path: CdnPath) -> None:
    """As a transparent proxy: users see the site's address alone, whoever answers."""
    with path.provider(60, "--transparent", str(SENDER)):
        path.get("d", "/page.html")
        wait_until(lambda: path.has_nodes("a", "b"))
        for name, node in (("d", "b"), ("e", "a"), ("d", "b")):
            got = path.get(name, "/page.html", "-i")
            assert (got.status, got.redirects) == (200, 0)
            assert f"via: 1.1 activecdn-{CACHES[node]}\n" in got.path.read_text()
        assert sorted(path.fetched("/page.html")) == [CACHES["a"], CACHES["b"]]
    got = path.get("d", "/page.html", "-i")
    assert (got.status, "via:" in got.path.read_text()) == (200, False)


@pytest.mark.proof
def test_modules_expire_with_their_provider(path: CdnPath) -> None:
    """The provider's side dies: its modules are gone after their ttl, and it begins anew."""
    with path.provider(ttl=10) as provider:
        path.get("d", "/large.bin")
        wait_until(lambda: path.has_nodes("a", "b") or path.get("d", "/large.bin").redirects == 1)
        provider.kill()
        provider.wait(10)

    def gone() -> bool:
        return all(each["modules"] == "none" for each in path.probe())

    assert not gone()
    wait_until(gone)
    with path.provider(ttl=10):
        assert path.get("d", "/large.bin").redirects == 0
        wait_until(lambda: path.get("d", "/large.bin").from_node == "b")
        time.sleep(25)  # nobody asks
        assert path.status()["nodes"] == []
        assert path.get("d", "/large.bin").redirects == 0
