"""``overload``: what a SIP server still does at five times its capacity, with Overload Control.

    sipp, calls as fast as it is told --- node, the module in a sandbox --- Kamailio

Each new call costs Kamailio the wait for a database, as it does in life, in one of its few workers;
that is all that limits it. A call counts if it was answered in time, acknowledged, and ended.
"""

import asyncio
import csv
import os
import signal
import socket
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import as_file, files
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from shutil import which

from anabranch.app.bench.modules.world import RECEIVER, SENDER, World, make_world
from anabranch.app.bench.report import Peer, Result
from anabranch.core.errors import UnavailableError
from anabranch.host.network import made_inside
from anabranch.host.process import end_process
from anabranch.services.archive import pack
from anabranch.services.controller.runtime import ModuleRequest
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.overload.kamailio import JsonRpc, Kamailio
from anabranch.services.modules.overload.provider import ReceivingEntity, Settings
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings
from anabranch.services.signalling.gist.objects import Address
from anabranch.services.signalling.values import Filter

MODULE = "NetServ.apps.OverloadControl_1.0.0"
SIP_PORT, FEEDBACK_PORT = 5060, 5066
WORKERS, LOOKUP_MS = 2, 10
NOMINAL = WORKERS * 1000 / LOOKUP_MS
TIMES = 5
_LIBRARIES = "/usr/lib/{}/kamailio/modules/"
_MODULES = ("kex", "pv", "sl", "siputils", "textops", "htable", "cfgutils", "jsonrpcs")
_WARM_UP_S, _MEASURED_S = 12, 18
_IN_TIME_MS = 2000

CONFIGURATION = """#!KAMAILIO
debug=-2
log_stderror=yes
children={workers}
auto_aliases=no
disable_tcp=yes
listen=udp:{address}:{port}
mpath="{libraries}"
{modules}
modparam("jsonrpcs", "transport", 4)
modparam("jsonrpcs", "dgram_socket", "{directory}/rpc")
modparam("htable", "htable", "callers=>size=8;autoexpire=10;initval=0")
modparam("htable", "htable", "registered=>size=8;autoexpire=3600;initval=0")
request_route {{
    if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
    if (is_method("ACK")) exit;
    $var(seen) = $shtinc(callers=>$si);
    if (is_method("REGISTER")) $var(seen) = $shtinc(registered=>$si);
    if (!has_totag()) usleep("{microseconds}");
    sl_send_reply("200", "OK");
}}
"""

SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="call">
  <send retrans="500"><![CDATA[
{invite}
  ]]></send>
  <recv response="503" optional="true" next="refused" timeout="{in_time}" ontimeout="late"/>
  <recv response="200"/>
  <send><![CDATA[
{ack}
  ]]></send>
  <send retrans="500"><![CDATA[
{bye}
  ]]></send>
  <recv response="503" optional="true" next="late" timeout="{in_time}" ontimeout="late"/>
  <recv response="200" counter="done" next="end"/>
  <label id="refused"/>
  <send counter="refused" next="end"><![CDATA[
{ack}
  ]]></send>
  <label id="late"/>
  <nop counter="late"/>
  <label id="end"/>
</scenario>
"""
_MESSAGE = """{method} sip:service@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}
      From: <sip:sipp@[local_ip]:[local_port]>;tag=[call_number]
      To: <sip:service@[remote_ip]:[remote_port]>{to_tag}
      Call-ID: [call_id]
      CSeq: {number} {method}
      Contact: sip:sipp@[local_ip]:[local_port]
      Max-Forwards: 70
      Content-Length: 0
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Calls a second: offered, done in time, refused with 503, too late."""

    offered: float
    done: float
    refused: float
    late: float


def measure(_samples: int) -> list[Result]:
    """Measure the capacity, then the goodput at five times as much, without and with the module.

    Raises:
        UnavailableError: something needed is missing, or not root.
    """
    for tool in ("kamailio", "sipp"):
        if which(tool) is None:
            raise UnavailableError(f"{tool} is not installed")
    with (
        tempfile.TemporaryDirectory(prefix="ab-overload-") as name,
        make_world(sink=False) as world,
    ):
        directory = Path(name)
        directory.chmod(0o755)  # Kamailio reads and writes there
        return asyncio.run(_measure(world, directory))


async def _measure(world: World, directory: Path) -> list[Result]:
    loads = [round(NOMINAL * part) for part in (0.8, 0.9, 1.0, 1.1)]
    without = [await _run(world, directory, load, control=False) for load in loads]
    capacity = max(each.done for each in without)
    offered = round(capacity * TIMES)
    bare = await _run(world, directory, offered, control=False)
    helped = await _run(world, directory, offered, control=True)
    peer = Peer("the same without the module", round(bare.done / capacity, 3))
    ratio = round(helped.done / capacity, 3)
    return [
        Result("overload_goodput_ratio", "of capacity", 1, ratio, target=">= 0.9", peer=peer),
        Result("overload_capacity", "calls/s", len(loads), round(capacity, 1)),
        Result("overload_offered", "calls/s", 1, round(helped.offered, 1)),
        Result("overload_refused_at_edge", "calls/s", 1, round(helped.refused, 1)),
        Result("overload_late", "calls/s", 1, round(helped.late, 1),
               peer=Peer("the same without the module", round(bare.late, 1))),
    ]  # fmt: skip


async def _run(world: World, directory: Path, offered: int, *, control: bool) -> Outcome:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running_kamailio(world.receiver, directory))
        if control:
            await stack.enter_async_context(controlled(world, directory))
        return await call(world.sender, directory, offered, _WARM_UP_S, _MEASURED_S)


@asynccontextmanager
async def running_kamailio(
    namespace: str, directory: Path, address: str = RECEIVER
) -> AsyncIterator[None]:
    """Run a Kamailio that is as slow as its database; ``directory/rpc`` is its RPC socket."""
    libraries = Path(_LIBRARIES.format(sysconfig.get_config_var("MULTIARCH")))
    text = CONFIGURATION.format(
        workers=WORKERS, address=address, port=SIP_PORT, libraries=libraries,
        modules="\n".join(f'loadmodule "{name}.so"' for name in _MODULES),
        directory=directory, microseconds=LOOKUP_MS * 1000,
    )  # fmt: skip
    (directory / "kamailio.cfg").write_text(text)
    with (directory / "kamailio.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", namespace,
            "kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-f", str(directory / "kamailio.cfg"),
            "-w", str(directory), "-Y", str(directory),
            stdout=asyncio.subprocess.DEVNULL, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        rpc = directory / "rpc"
        for _ in range(100):
            if rpc.exists() or process.returncode is not None:
                break
            await asyncio.sleep(0.1)
        if not rpc.exists():
            said = (directory / "kamailio.log").read_text()[-300:]
            raise UnavailableError(f"Kamailio does not come up: {said}")
        yield
    finally:
        await end_process(process, 5.0)
        (directory / "rpc").unlink(missing_ok=True)


class RuntimeEdge:
    """Implements ``Edge`` with a node of this process: the signalling is not what is measured."""

    def __init__(self, runtime: NodeRuntime, user: User, key: PrivateKey, directory: Path) -> None:
        self._runtime = runtime
        self._user = user
        with as_file(files("anabranch.services.modules.overload")) as source:
            data = bytes(pack(source).sign(user.name, key))
        self._archive = directory / "overload.abm"
        self._archive.write_bytes(data)
        self._digest = sha256(data).digest()
        self.installed = asyncio.Event()

    async def install(self, towards: Address, properties: Mapping[str, str]) -> None:
        """Install it at the one node, which is on every path."""
        del towards
        wanted = Filter(ip_network(f"{RECEIVER}/32"), 17, (SIP_PORT,))
        request = ModuleRequest(MODULE, self._archive, self._digest, wanted, 60, properties)
        await self._runtime.install(self._user, request)
        self.installed.set()

    async def remove(self, towards: Address) -> None:
        """Remove it."""
        del towards
        await self._runtime.remove(self._user, MODULE)


@asynccontextmanager
async def controlled(world: World, directory: Path) -> AsyncIterator[RuntimeEdge]:
    """Run a node on the path, and the receiving entity beside Kamailio."""
    run_id = f"overload-{os.getpid()}"
    settings = RuntimeSettings(directory / "node", run_id)
    runtime = NodeRuntime(settings, LinuxPlane("overload", world.router))
    key = PrivateKey.generate()
    user = User(name="itsp", public_key=key.public, address=IPv4Address("10.9.0.1"))
    edge = RuntimeEdge(runtime, user, key, directory)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runtime.close)
        await runtime.open()
        listener = _udp(world.receiver)
        listener.bind((RECEIVER, FEEDBACK_PORT))
        probe = _udp(world.receiver)
        probe.connect((RECEIVER, SIP_PORT))
        kamailio = Kamailio(JsonRpc(directory / "rpc", directory / "own"), probe)
        stack.callback(kamailio.close)
        entity = ReceivingEntity(Settings((RECEIVER, FEEDBACK_PORT), key), kamailio, edge, listener)
        task = asyncio.create_task(entity.run(), name="receiving-entity")
        try:
            yield edge
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _udp(namespace: str) -> socket.socket:
    made = made_inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.setblocking(False)
    return made


async def call(
    namespace: str, directory: Path, rate: int, warm_up: int, measured: int,
    *, own: str = SENDER, to: str = RECEIVER,
) -> Outcome:  # fmt: skip
    """Offer so many calls a second, and return what became of them after ``warm_up`` seconds.

    Args:
        own, to: addresses of the callers and of the server.

    Raises:
        UnavailableError: sipp fails.
    """
    scenario, statistics = directory / "call.xml", directory / "calls.csv"
    scenario.write_text(_scenario())
    statistics.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", namespace,
        "sipp", "-sf", str(scenario), f"{to}:{SIP_PORT}", "-i", own, "-p", "5061",
        "-r", str(rate), "-l", "100000", "-nostdin", "-trace_stat", "-fd", "1",
        "-stf", str(statistics), "-buff_size", str(8 << 20),
        cwd=directory, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        await asyncio.sleep(warm_up + measured + 2)
        if process.returncode is not None:
            said = await process.stderr.read() if process.stderr else b""
            raise UnavailableError(f"sipp: {said.decode(errors='replace')[-300:]}")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    return _outcome(statistics, warm_up, measured)


def _scenario() -> str:
    def message(method: str, number: int, to_tag: str, branch: str = "[branch]") -> str:
        return _MESSAGE.format(method=method, number=number, to_tag=to_tag, branch=branch).strip()

    tag = "[peer_tag_param]"
    return SCENARIO.format(
        invite=message("INVITE", 1, ""), ack=message("ACK", 1, tag), bye=message("BYE", 2, tag),
        in_time=_IN_TIME_MS,
    )  # fmt: skip


def _outcome(statistics: Path, warm_up: int, measured: int) -> Outcome:
    with statistics.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    if len(rows) < warm_up + measured:
        raise UnavailableError(f"sipp ran for {len(rows)} s only")
    first, last = rows[warm_up], rows[warm_up + measured - 1]

    def rate(column: str) -> float:
        return (float(last[column]) - float(first[column])) / (measured - 1)

    return Outcome(
        rate("OutgoingCall(C)"), rate("done(C)"), rate("refused(C)"),
        rate("late(C)"),
    )  # fmt: skip
