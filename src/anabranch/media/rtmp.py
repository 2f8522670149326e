"""The site's RTMP server: one nginx with its RTMP module, and the calls it makes.

A publisher comes with a secret key as its stream's name. The server asks the director, which
answers ``302`` with the channel's name in ``Location`` (the stream then goes by that name, and
the key is seen nowhere) or ``403``. Only this machine may play what is published.
"""

import asyncio
import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import structlog

from anabranch.host import network
from anabranch.host.process import Child, ChildSpec
from anabranch.media.errors import RtmpError
from anabranch.media.publisher_figures import Reception
from anabranch.media.rtmp_figures import read_stat

APPLICATION = "live"
PUBLISH_PATH = "/internal/rtmp/publish"
DONE_PATH = "/internal/rtmp/publish_done"
_CONTROL_PATH = "/control"
_STAT_PATH = "/stat"
_BODIES = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_STAT_TIMEOUT_S = 1.0
# The server talks to strangers: as root it keeps the user, for its directory's sake, but no power.
_POWERLESS = (
    *("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"),
    *("--no-new-privs", "--"),
)
RTMP_MODULE = "/usr/lib/nginx/modules/ngx_rtmp_module.so"
_log = structlog.get_logger("anabranch.rtmp")


@dataclass(frozen=True, slots=True)
class RtmpConfig:
    """Where the server listens and whom it asks.

    Attributes:
        directory: existing directory, the server's own. Who gets in may ask for its publishers'
            addresses.
        port: TCP port for publishers and for the ingest, on every address.
        api_port: TCP port of the director on 127.0.0.1.
        idle_s: seconds of silence after which a publisher is dropped.
        netns: named network namespace to run in, or None for the director's own.
    """

    directory: Path
    port: int
    api_port: int
    idle_s: int = 5
    netns: str | None = None
    nginx: str = "/usr/sbin/nginx"
    module: str = RTMP_MODULE

    @property
    def stat_socket(self) -> Path:
        """The Unix socket at which the server tells its figures and is given orders, by HTTP."""
        return self.directory / "stat.sock"

    @property
    def scratch(self) -> Path:
        """The directory that nginx wants for bodies of HTTP requests; nothing comes there."""
        return self.directory / "scratch"


@dataclass(frozen=True, slots=True)
class RtmpCall:
    """One call of the server.

    Attributes:
        call: ``publish`` or ``publish_done`` (others exist).
        app: application, ``live``.
        name: the publisher's key, at ``publish_done`` too. It is a secret.
        addr: the publisher's address.
        client_id: the server's number of the connection, equal in both calls. A publisher that is
            refused since the channel is busy also ends with ``publish_done``: go by this number.
    """

    call: str
    app: str
    name: str
    addr: str
    client_id: str


def rtmp_conf(config: RtmpConfig) -> str:
    """Return the text of ``nginx.conf``."""
    for path in (str(config.directory), config.module):
        if not re.fullmatch(r"[A-Za-z0-9_./+-]+", path):
            raise RtmpError(f"nginx cannot be told the path {path!r}")
    api = f"http://127.0.0.1:{config.api_port}"
    bodies = "\n    ".join(f"{each}_temp_path {config.scratch};" for each in _BODIES)
    # Else nginx would give the directory to another user, for which it has no power.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"""\
load_module {config.module};
{user}\
daemon off;
master_process off;
worker_processes 1;
pid {config.directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    {bodies}
    server {{
        listen unix:{config.stat_socket};
        location = {_STAT_PATH} {{ rtmp_stat all; }}
        location {_CONTROL_PATH}/ {{ rtmp_control all; }}
        location / {{ return 404; }}
    }}
}}
rtmp {{
    access_log off;
    server {{
        listen {config.port};
        chunk_size 4096;
        ping 10s;
        ping_timeout 5s;
        application {APPLICATION} {{
            live on;
            record off;
            drop_idle_publisher {config.idle_s}s;
            notify_method post;
            on_publish {api}{PUBLISH_PATH};
            on_publish_done {api}{DONE_PATH};
            allow play 127.0.0.1;
            deny play all;
        }}
    }}
}}
"""


def parse_call(body: bytes) -> RtmpCall:
    """Read the form-encoded body of the server's call.

    Raises:
        RtmpError: it is something else.
    """
    try:
        fields = {
            name: values[-1]
            for name, values in parse_qs(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=64
            ).items()
        }
        return RtmpCall(
            fields["call"],
            fields.get("app", ""),
            fields["name"],
            fields.get("addr", ""),
            fields.get("clientid", ""),
        )
    except (KeyError, ValueError) as error:
        raise RtmpError("not a call of the RTMP server") from error


class RtmpServer:
    """The supervised nginx.

    ``on_line`` gets what it logs; secrets may be in it, so it goes nowhere by default.
    """

    def __init__(
        self,
        name: str,
        config: RtmpConfig,
        run_id: str,
        *,
        on_exit: Callable[[int], None] | None = None,
    ) -> None:
        self.config = config
        self._conf = config.directory / "nginx.conf"
        self._errors: list[str] = []
        self._on_exit = on_exit
        self._client: httpx.AsyncClient | None = None
        self._child = Child(
            ChildSpec(
                name,
                (
                    *(_POWERLESS if os.geteuid() == 0 else ()),
                    *(config.nginx, "-p", str(config.directory)),
                    *("-e", "stderr", "-c", str(self._conf)),
                ),
                netns=config.netns,
                lasting=True,
            ),
            run_id,
            on_line=self._on_line,
            on_exit=self._exited,
        )

    @property
    def child(self) -> Child:
        """The supervised process."""
        return self._child

    async def start(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Write the configuration, start the server and wait until it listens.

        Raises:
            ProcessError: there is no nginx.
            RtmpError: it does not listen within ``timeout`` seconds, the port is taken for example.
        """
        conf = rtmp_conf(self.config)
        if not self._child.survives or not self._conf.is_file() or self._conf.read_text() != conf:
            await self._child.abandon()
            self._conf.write_text(conf)
            self._remove_socket()
        await self._child.start()
        deadline = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < deadline and not self._errors:
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(0.05)
                continue
            # Whoever answered: ours is the one that did not complain of a taken port.
            await asyncio.sleep(0.1)
            if not self._errors:
                return
        reason = self._errors[0] if self._errors else "it does not listen"
        await self.stop()
        raise RtmpError(f"the RTMP server does not start: {reason}")

    async def _connect(self) -> None:
        """Raises OSError: nobody listens yet."""
        netns = self.config.netns
        tcp = socket.AF_INET, socket.SOCK_STREAM
        with network.socket_inside(netns) if netns is not None else socket.socket(*tcp) as probe:
            probe.setblocking(False)
            at = ("127.0.0.1", self.config.port)
            await asyncio.get_running_loop().sock_connect(probe, at)

    async def stop(self) -> None:
        """End the server and remove its files. Safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        await self._child.stop()
        for name in ("nginx.conf", "nginx.pid"):
            (self.config.directory / name).unlink(missing_ok=True)
        self._remove_socket()
        shutil.rmtree(self.config.scratch, ignore_errors=True)

    async def drop(self, stream: str) -> None:
        """End whoever publishes a stream; that nobody does, or the server is away, is as good."""
        where = {"app": APPLICATION, "name": stream}
        try:
            await self._http().get(f"{_CONTROL_PATH}/drop/publisher", params=where)
        except httpx.HTTPError as error:
            _log.warning("rtmp.publisher-not-dropped", error=str(error))

    async def statistics(self) -> dict[str, Reception]:
        """Return what came from its publishers, by ``client_id``; nothing if it does not tell."""
        try:
            answer = await self._http().get(_STAT_PATH)
            return read_stat(answer.raise_for_status().content)
        except (httpx.HTTPError, RtmpError) as error:
            _log.warning("rtmp.no_figures", error=str(error))
            return {}

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self.config.stat_socket), verify=False)
            self._client = httpx.AsyncClient(
                transport=transport, base_url="http://rtmp", timeout=_STAT_TIMEOUT_S
            )
        return self._client

    def _exited(self, code: int) -> None:
        self._remove_socket()
        if self._on_exit is not None:
            self._on_exit(code)

    def _remove_socket(self) -> None:
        """Remove what a killed server leaves behind: the next one could not listen there."""
        self.config.stat_socket.unlink(missing_ok=True)

    def _on_line(self, stream: str, line: str) -> None:
        if "[emerg]" in line and len(self._errors) < 5:
            text = line.partition("[emerg]")[2]
            taken = "Address already in use" in text
            port = self.config.port
            self._errors.append(
                f"port {port} is taken by another program" if taken else text.strip()[:200]
            )
