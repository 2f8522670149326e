"""``anabranch fabric``: every command against a fabric of soft switches, by HTTP.

s1 -- s2 -- s3, and s1 -- s3: a triangle, a host at port 1 of each.
"""

import asyncio
import json
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI
from rich.console import Console
from typer.testing import CliRunner, Result

from anabranch.app import cli, terminal
from anabranch.app.fabric_commands import callbacks, paths, showing
from anabranch.app.serving import serve
from anabranch.console import fabric_api, problems
from anabranch.console.people.node_keys import key_of
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.frames import arp_request
from anabranch.fabric.host_services import Settings
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.options import Options
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import graph
from anabranch.fabric.steering import Filter, ServiceNode

TOKEN = "the-operators-secret"
MAC = "02:00:00:00:00:07"
_T = TypeVar("_T")


class Live:
    """A fabric, its switches and its console, in a thread with a loop of their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.network = graph([(1, 2), (2, 3), (1, 3)])
        links = {Link(a, b): LinkInfo() for a, b in self.network.peers.items()}
        links = {link: LinkInfo(capacity_mbit=100, redundant="s2" in str(link)) for link in links}
        names = {switch.dpid: name for name, switch in self.network.switches.items()}
        hosts = Settings(edge=frozenset({PortRef("s1", 1)}))
        self.options = Options(names=names, links=links, hosts=hosts, counters_s=0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.up = threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._run(),))
        self.thread.start()

    async def _run(self) -> None:
        self.stop = asyncio.Event()
        self.fabric = Fabric(self.options, lambda _: None)
        app = FastAPI()
        app.state.fabric = self.fabric
        problems.install(app)
        app.include_router(fabric_api.make_router(TOKEN))
        port = await self.fabric.controller.listen_tcp("127.0.0.1", 0)
        self.farm = Farm(self.network, f"tcp:127.0.0.1:{port}")
        tasks = [
            asyncio.create_task(self.fabric.run()),
            asyncio.create_task(serve(app, self.listener, None)),
        ]
        await self.farm.start()
        while len(self.fabric.network().switches) < 3:
            await asyncio.sleep(0.01)
        self.up.set()
        await self.stop.wait()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.fabric.close()
        await self.farm.close()

    def do(self, what: Callable[[], _T]) -> _T:
        """Call something where the fabric lives."""

        async def call() -> _T:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def until(self, true: Callable[[], object]) -> None:
        async def wait() -> None:
            while not true():
                await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(wait(), self.loop).result(10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()
        self.listener.close()
        self.loop.close()


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    made = Live()
    try:
        assert made.up.wait(10)
        monkeypatch.setenv("ANABRANCH_URL", made.url)
        monkeypatch.setenv("ANABRANCH_TOKEN", TOKEN)
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles that write where the runner looks."""
    out = Console(highlight=False, width=200)
    err = Console(stderr=True, highlight=False, width=200)
    for module in (cli, terminal, callbacks, paths, showing):
        monkeypatch.setattr(module, "out", out)
    for module in (cli, terminal):
        monkeypatch.setattr(module, "err", err)
    monkeypatch.setattr("anabranch.app.logs.set_up_logs", lambda _config: None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["fabric", *arguments])


def says(*arguments: str) -> list[list[str]]:
    """Run a command that succeeds; return its words, line by line."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return [line.split() for line in result.stdout.splitlines()]


def reads(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(result: Result, words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


LECTURE = ["path", "add", "lecture", "--from", "s1:1", "--to", "s3:1", "--to", "s2:1"]
LECTURE += ["--match", "eth_type=0x800", "--match", "ipv4_dst=239.1.2.3"]
STREAM = ["vm-path", "add", "stream", "--from", "s1:1", "--to", "s3:1"]
STREAM += ["--external", "192.168.1.181"]
SEED = '"vpm-extend-match": {"dataLayerType": "0x0800", "networkDestination": "10.0.0.255",}'


def test_switches(live: Live) -> None:
    head, *rows = says("switches")
    assert head == ["Switch", "Datapath", "State", "Ports", "Rules"]
    assert [row[:4] for row in rows] == [
        [f"s{number}", f"{number:016x}", "up", "3"] for number in (1, 2, 3)
    ]
    live.do(lambda: setattr(live.farm, "_dialling", asyncio.Semaphore(0)))
    live.do(lambda: live.farm.disconnect("s2"))
    live.until(lambda: not live.fabric.switches()["s2"].connected)
    assert [entry["connected"] for entry in reads("switches")] == [True, False, True]


def test_links(live: Live) -> None:
    _, *rows = says("links")
    assert ["s1:3", "s3:3", "up", "0.0", "100"] in rows
    assert ["s1:2", "s2:2", "up", "0.0", "100", "reserve"] in rows
    live.do(lambda: live.farm.set_link(PortRef("s1", 3), False))
    live.until(lambda: not live.fabric.network().links[Link(*direct(live))].up)
    down = [link["src"] for link in reads("links") if not link["up"]]
    assert sorted(down) == ["s1:3", "s3:3"]


def direct(live: Live) -> tuple[PortRef, PortRef]:
    end = PortRef("s1", 3)
    return end, live.network.peers[end]


def test_hosts_and_events(live: Live) -> None:
    assert says("hosts") == [["None."]]
    says(*LECTURE)  # from now on the switches hand over what hosts ask
    live.do(lambda: live.farm.send(PortRef("s1", 1), arp_request(MAC, "10.0.0.7", "10.0.0.1")))
    live.until(lambda: MAC in live.fabric.network().hosts)
    assert says("hosts")[1:] == [[MAC, "10.0.0.7", "s1:1"]]
    assert reads("hosts")[0]["vm"] is False
    seen = says("events", "-n", "1000")
    assert seen[-1][:2] == ["host.added", MAC], "newest last"
    assert [event["subject"] for event in reads("events", "-n", "1")] == [MAC]


def test_service_nodes(live: Live) -> None:
    assert says("service-nodes") == [["None."]]
    sip = Filter("jane", IPv4Network("10.0.0.7/32"), 17, (5060,))
    address = IPv4Address("10.0.0.101")
    for name, port_no, stage in (("n1", 1, "b"), ("n2", 9, "a")):
        mac = f"02:00:00:00:01:{port_no:02x}"
        node = ServiceNode(name, PortRef("s2", port_no), mac, address + port_no, stage, (sip,))
        registering = live.fabric.register(node, 30.0)
        asyncio.run_coroutine_threadsafe(registering, live.loop).result(10)
    assert says("service-nodes")[1:] == [
        ["n2", "s2:9", "a", "down", "0", "1"],
        ["n1", "s2:1", "b", "up", "0", "1"],
    ]
    assert reads("service-nodes")[1]["filters"][0]["ports"] == [5060]
    assert says("service-node-key", "n1") == [[key_of(TOKEN, "n1")]]
    fails(run("service-node-key", "n 1"), "name")


def test_paths(live: Live) -> None:
    assert says("paths") == [["None."]]
    said = says(*LECTURE, "--to", "s9:1")
    assert said[0] == ["lecture", "is", "carried:", "s1:2>s2:2", "s1:3>s3:3"]
    assert said[1:] == [["There", "is", "no", "way", "to", "s9:1", "now."]]
    row = says("paths")[1]
    assert row[:6] == ["lecture", "s1:1", "s2:1", "s3:1", "s9:1", "s1:2>s2:2"]
    assert row[-2:] == ["unreachable:", "s9:1"]
    (path,) = reads("paths")
    assert path["match"] == {"eth_type": 2048, "ipv4_dst": "239.1.2.3"}
    made = reads(
        "path", "add", "near", "--from", "s1:1", "--to", "s1:1", "--match", "eth_type=0x806"
    )
    assert made["path"]["links"] == []
    assert says("path", "remove", "near") == [["near", "is", "gone."]]
    near = ["path", "add", "near", "--from", "s1:1", "--to", "s1:1", "--match", "eth_type=0x806"]
    assert says(*near) == [["near", "is", "carried:", "within", "one", "switch"]]
    assert says("path", "remove", "lecture")
    assert [path["name"] for path in reads("paths")] == ["near"]


def test_flows(live: Live) -> None:
    says(*LECTURE)
    rows = [" ".join(row) for row in says("flows", "s1")]
    assert any("ipv4_dst=239.1.2.3" in row and "intent" in row for row in rows)
    assert any("drop" in row for row in rows)
    assert any("goto:1" in row for row in rows)
    assert len(reads("flows", "s1")) == len(rows) - 1


def test_a_path_with_everything_that_there_is(live: Live) -> None:
    everything = ["path", "add", "full", "--from", "s1:1", "--match", "eth_type=0x800"]
    everything += ["--match", "ip_proto=17", "--match", "ipv4_dst=239.1.2.3"]
    rewritten = "ipv4_dst=192.168.1.181,udp_dst=5004,eth_dst=02:00:00:00:00:09"
    everything += ["--to", f"s3:1,{rewritten}", "--to", "s2:1", "--through", "s1:5,s1:6"]
    everything += ["--through", "s2:7", "--priority", "7", "--rate-kbps", "5000", "--no-protected"]
    says(*everything, "--policy", "widest")
    (path,) = reads("paths")
    assert path["egresses"][0] == {
        "at": "s2:1",
        **dict.fromkeys(("eth_dst", "ipv4_dst", "ipv6_dst", "udp_dst", "eth_src", "ipv4_src")),
    }
    assert path["egresses"][1]["ipv4_dst"] == "192.168.1.181"
    assert path["egresses"][1]["udp_dst"] == 5004
    assert path["egresses"][1]["eth_dst"] == "02:00:00:00:00:09"
    assert path["through"] == [{"to": "s1:5", "back": "s1:6"}, {"to": "s2:7", "back": "s2:7"}]
    assert (path["priority"], path["rate_kbps"], path["protected"]) == (7, 5000, False)


def test_meters(live: Live) -> None:
    assert says("meters", "s1") == [["None."]]
    says(*LECTURE, "--rate-kbps", "5000")
    (meter,) = says("meters", "s1")[1:]
    assert meter[1:] == ["5000", "kbit/s", "1", "0", "0"]
    assert [entry["meter"] for entry in reads("meters", "s1")] == [int(meter[0])]


def test_groups(live: Live) -> None:
    assert says("groups", "s1") == [["None."]]
    says(*LECTURE)
    rows = [" ".join(row) for row in says("groups", "s1")]
    assert any("while 2 is live: output:2 | while 3 is live: push_vlan" in row for row in rows)
    assert len(reads("groups", "s1")) == len(rows) - 1


def test_callbacks(live: Live, here: Path) -> None:
    url, other = "http://127.0.0.1:9/told", "http://127.0.0.1:9/other"
    assert says("callbacks", "list") == [["None."]]
    made, secret = says("callbacks", "add", url, "--kind", "vm.*", "--form")
    assert made[:3] == [url, "is", "told,"]
    assert secret[-1].startswith("whsec_")
    (row,) = says("callbacks", "list")[1:]
    assert row[1:4] == [url, "form", "vm.*"]
    file = here / "secret"
    assert len(says("callbacks", "add", other, "--secret-file", "secret")) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    drawn = file.read_text()
    assert says("callbacks", "remove", other) == [[other, "is", "told", "no", "more."]]
    again = reads("callbacks", "add", other, "--secret-file", "secret")
    assert again["secret"] + "\n" == drawn == file.read_text()
    assert says("callbacks", "remove", again["id"])
    assert [entry["url"] for entry in reads("callbacks", "list")] == [url]


def test_paths_past_machines(live: Live, here: Path) -> None:
    assert says("vm-path", "list") == [["None."]]
    (here / "match.json").write_text(SEED)
    carried, *rules = says(*STREAM, "--extend-match", "match.json", "--role", "s1=root")
    assert carried == ["stream", "is", "carried:", "s1:3>s3:3"]
    assert rules == [[f"RTP_PASSTHROUGH{number:016x}"] for number in (1, 3)]
    (row,) = says("vm-path", "list")[1:]
    assert row == ["stream", "s1:1", "s3:1", "192.168.1.181", *(rule[0] for rule in rules)]
    (path,) = reads("vm-path", "list")
    assert path["match"] == {"eth_type": 2048, "ipv4_dst": "10.0.0.255"}
    assert path["roles"] == {"s1": "root"}
    more = [word if word != "stream" else "more" for word in STREAM]
    match = ["--match", "eth_type=0x800", "--match", "ipv4_dst=10.0.1.255"]
    made = reads(*more, *match, "--external-mac", "02:00:00:00:00:09")
    assert made["path"]["external_mac"] == "02:00:00:00:00:09"
    assert says("vm-path", "remove", "stream") == [["stream", "is", "gone."]]
    assert [path["name"] for path in reads("vm-path", "list")] == ["more"]
    assert live.fabric.followed().keys() == {"more"}


def test_links_of_a_path_run_from_its_ingress_on(live: Live) -> None:
    says("path", "add", "back", "--from", "s3:1", "--to", "s1:1", "--match", "eth_type=0x88b5")
    live.do(lambda: live.farm.set_link(PortRef("s1", 3), False))
    live.until(lambda: len(live.fabric.plan().trees["back"].links) == 2)
    assert says("paths")[1][3:] == ["s3:2>s2:3", "s2:2>s1:2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["flows", "s9"], "there is no datapath 's9'"),
        (["flows", "../hosts"], "Not Found"),
        (["flows", "a\udcff?b"], "there is no datapath"),
        (["groups", "s9"], "there is no datapath 's9'"),
        (["meters", "../s1"], "Not Found"),
        (["callbacks", "remove", "nobody"], "there is no callback 'nobody'"),
        (["callbacks", "add", "ftp://x"], "begins with http:// or https://"),
        (["callbacks", "add", "http://x", "--kind", "x"], "kinds"),
        (["callbacks", "add", "http://x", "--secret-file", "bad.json"], "whsec_ and base64"),
        (["callbacks", "add", "http://x", "--secret-file", "."], "cannot be read: Is a directory"),
        (["callbacks", "add", "http://x", "--secret-file", "no/where"], "no such directory"),
        ([*LECTURE, "--to", "s3:1,udp_dst"], "'udp_dst' is not FIELD=VALUE"),
        ([*LECTURE, "--to", "s3:1,colour=1"], "egresses.colour"),
        ([*LECTURE, "--through", "s3"], "through.to"),
        ([*LECTURE, "--priority", "0"], "priority"),
        (["events", "-n", "1001"], "limit"),
        (["path", "remove", "nothing"], "there is no path 'nothing'"),
        (["path", "remove", "../callbacks"], "is not allowed"),
        (["vm-path", "remove", "nothing"], "there is no path 'nothing'"),
        (["vm-path", "remove", "No"], "is not allowed"),
        ([*LECTURE, "--match", "nonsense"], "'nonsense' is not FIELD=VALUE"),
        ([*LECTURE, "--match", "colour=1"], "no match field 'colour'"),
        ([*LECTURE, "--policy", "scenic"], "policy"),
        ([*LECTURE, "--to", "s3"], "egresses"),
        (STREAM, "either match or extend_match"),
        ([*STREAM, "--match", "ip_proto=17"], "dataLayerType must be 0x0800"),
        ([*STREAM, "--match", "eth_type=2048", "--role", "s1"], "'s1' is not SWITCH=ROLE"),
        ([*STREAM, "--match", "eth_type=2048", "--role", "s1=king"], "roles.s1"),
        ([*STREAM, "--match", "eth_type=2048", "--role", "s1=leaf"], "s1 is a leaf, not a root"),
        ([*STREAM, "--match", "eth_type=2048", "--external", "x"], "'x' is not"),
        ([*STREAM, "--extend-match", "nowhere.json"], "nowhere.json cannot be read: No such file"),
        ([*STREAM, "--extend-match", "."], ". cannot be read: Is a directory"),
        ([*STREAM, "--extend-match", "bad.json"], "bad.json is wrong: vpm-extend-match: not JSON"),
        (
            [*STREAM, "--extend-match", "odd.json"],
            "odd.json is wrong: vpm-extend-match: 'colour' is not one of",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    live: Live, here: Path, arguments: list[str], words: str
) -> None:
    (here / "bad.json").write_text("{]")
    (here / "odd.json").write_text('{"colour": 1}')
    fails(run(*arguments), words)
    assert live.fabric.intents().names == frozenset()
    assert live.fabric.followed() == {}


def test_names_that_are_taken(live: Live, here: Path) -> None:
    (here / "match.json").write_text(SEED)
    says(*LECTURE)
    fails(run(*LECTURE), "the name lecture is taken")
    says(*STREAM, "--extend-match", "match.json")
    fails(run(*STREAM, "--match", "eth_type=2048"), "the name stream is taken")
    assert len(live.fabric.followed()) == 1


ASKING = [
    ["switches"],
    ["links"],
    ["hosts", "--json"],
    ["service-nodes"],
    ["service-node-key", "s1-a"],
    ["flows", "s1"],
    ["groups", "s1"],
    ["meters", "s1"],
    ["callbacks", "list"],
    ["callbacks", "add", "http://x"],
    ["callbacks", "remove", "x"],
    ["paths"],
    ["events"],
    ["path", "remove", "lecture"],
    ["vm-path", "list"],
    ["vm-path", "remove", "stream"],
    LECTURE,
    [*STREAM, "--match", "eth_type=2048"],
]


@pytest.mark.parametrize("arguments", ASKING, ids=lambda words: "-".join(words[:2]))
def test_where_nobody_answers(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("ANABRANCH_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("ANABRANCH_TOKEN", TOKEN)
    fails(run(*arguments), "is `anabranch up` running?")


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (None, [], "net.yaml cannot be read: "),
        ("listen: [", [], "net.yaml cannot be read: "),
        ("colour: red", [], "net.yaml is wrong: colour"),
        ("listen: nonsense", [], "'nonsense' is not ADDRESS:PORT"),
        ("", ["--listen", "nonsense"], "'nonsense' is not ADDRESS:PORT"),
        ("", ["--listen", "127.0.0.1:65536"], "'127.0.0.1:65536' is not ADDRESS:PORT"),
        ("api: nonsense", [], "'nonsense' is not ADDRESS:PORT"),
        ("api: unix:nowhere/api.sock", [], "cannot listen at nowhere/api.sock"),
        ("api: 192.0.2.1:80", [], "cannot listen on 192.0.2.1:80"),
        ("listen: 192.0.2.1:80", [], "cannot listen at 192.0.2.1:80"),
        ("path_logic: scenic", [], "'scenic'; there are: soleil"),
        ("intents: {flows: [{name: 5}]}", [], "the intents are wrong at flows"),
        (
            "listen: 127.0.0.1:16653\ntls: {ca: a, certificate: b, key: c}",
            [],
            "cannot use the certificates",
        ),
        ("lease: nowhere/lease", [], "cannot use the lease nowhere/lease: No such file"),
        ("lease: net.yaml", [], "net.yaml is no lease: it holds 'lease: net.yaml"),
    ],
)
def test_a_controller_that_cannot_be_is_one_line(
    here: Path, text: str | None, options: list[str], words: str
) -> None:
    if text is not None:
        keys = [line.partition(":")[0] for line in text.splitlines()]
        rest = {"api": f"unix:{here}/api", "listen": "null"}
        lines = [text, *(f"{key}: {rest[key]}" for key in rest if key not in keys)]
        (here / "net.yaml").write_text("\n".join(lines))
    fails(run("controller", "net.yaml", *options), words)
