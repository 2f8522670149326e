"""``cdn``: how fast ActiveCDN's module serves from its cache, beside nginx.

    sender, curl --- node, the module in a sandbox --- receiver, nginx: the origin, and the peer

nginx is asked for the same objects over the same links, through the node's plain forwarding. Large
objects go over one connection, small ones over four that stay open.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib.resources import as_file, files
from ipaddress import IPv4Address
from pathlib import Path

from anabranch.app.bench.modules.world import RECEIVER, World, make_world
from anabranch.app.bench.report import Peer, Result, percentiles, sampled
from anabranch.core.errors import UnavailableError
from anabranch.host.process import ProcessError, end_process, run_command
from anabranch.services.archive import pack
from anabranch.services.controller.runtime import ModuleRequest
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings

MODULE = "NetServ.apps.ActiveCdn_1.0.0"
NODE = "10.9.0.1"
_LARGE, _SMALL = 100_000_000, 10_000
_REQUESTS, _AT_ONCE = 4000, 4
_TRIES = 100
_NGINX = """
daemon off; pid {d}/pid; error_log stderr crit; worker_processes 1;
events {{}}
http {{
  access_log off; sendfile on; keepalive_requests 100000;
  client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3;
  uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;
  server {{ listen {address}:80; root {d}/site; }}
}}
"""


def measure(samples: int) -> list[Result]:
    """Measure on a node of its own. Raises UnavailableError; needs root and Debian's curl."""
    with make_world(sink=False) as world, tempfile.TemporaryDirectory(prefix="ab-cdn-") as name:
        return asyncio.run(_measure(world, Path(name), samples))


async def _measure(world: World, directory: Path, samples: int) -> list[Result]:
    settings = RuntimeSettings(directory / "node", f"cdn-{os.getpid()}")
    runtime = NodeRuntime(settings, LinuxPlane("cdn", world.router))
    try:
        await runtime.open()
        await _install(runtime, directory)
        async with _nginx(world, directory):
            rates: dict[str, tuple[list[float], list[float]]] = {}
            for address in (NODE, RECEIVER):
                await _large(world, address)  # to the node: it is fetched
                rates[address] = (
                    [await _large(world, address) for _ in range(samples)],
                    [await _small(world, address) for _ in range(samples)],
                )
    finally:
        await runtime.close()
    names = (("cdn_mb_per_s", "MB/s"), ("cdn_requests_per_s", f"requests/s of {_SMALL // 1000} kB"))
    return [
        sampled(name, unit, own, peer=Peer("nginx", round(percentiles(other)[0], 1)))
        for (name, unit), own, other in zip(names, rates[NODE], rates[RECEIVER], strict=True)
    ]


async def _install(runtime: NodeRuntime, directory: Path) -> None:
    key = PrivateKey.generate()
    user = User(name="site", public_key=key.public, address=IPv4Address(NODE),
                listen_ports=(range(80, 81),))  # fmt: skip
    with as_file(files("anabranch.services.modules.activecdn")) as source:
        data = bytes(pack(source).sign(user.name, key))
    archive = directory / "cdn.abm"
    archive.write_bytes(data)
    properties = {"origin": f"http://{RECEIVER}", "fresh": "3600"}
    request = ModuleRequest(MODULE, archive, sha256(data).digest(), None, 600, properties)
    await runtime.install(user, request)


@asynccontextmanager
async def _nginx(world: World, directory: Path) -> AsyncIterator[None]:
    configuration = _make_site(directory)
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/run/netns/{world.receiver}", "--", "nginx", "-c", str(configuration),
        start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(_TRIES):
            if await _answers(world):
                break
            await asyncio.sleep(0.05)
        else:
            raise UnavailableError("nginx does not come up")
        yield
    finally:
        await end_process(process, 2.0)


def _make_site(directory: Path) -> Path:
    """Write nginx's files and return its configuration."""
    site = directory / "site"
    site.mkdir()
    (site / "large").write_bytes(os.urandom(_LARGE))
    (site / "small").write_bytes(os.urandom(_SMALL))
    directory.chmod(0o755)
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(d=directory, address=RECEIVER))
    return configuration


async def _answers(world: World) -> bool:
    try:
        await _curl(world, f"http://{RECEIVER}/small")
    except ProcessError:
        return False
    return True


async def _large(world: World, address: str) -> float:
    """Return MB/s of the large object."""
    said = await _curl(world, "-w", "%{speed_download}", f"http://{address}/large")
    return float(said) / 1e6


async def _small(world: World, address: str) -> float:
    """Return the small object's requests a second."""
    each = _REQUESTS // _AT_ONCE
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(
        _curl(world, f"http://{address}/small#[1-{each}]") for _ in range(_AT_ONCE)
    ))  # fmt: skip
    return _REQUESTS / (loop.time() - began)


async def _curl(world: World, *words: str) -> str:
    """Run curl at the sender and return what it prints but bodies. Raises ProcessError."""
    return await run_command("curl", "-sSf", "-o", "/dev/null", *words, netns=world.sender)
