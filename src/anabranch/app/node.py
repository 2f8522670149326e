"""A node's agent: what ``anabranch node join`` runs on a machine that is not the root's."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from anabranch.app.serving import listen_unix, raise_file_limit, serve
from anabranch.console.leaf_api import make_leaf_api
from anabranch.core.errors import AnabranchError, UnavailableError, UsageError
from anabranch.core.names import check_name, new_id
from anabranch.host.journal import Journal, hold
from anabranch.host.process import Child
from anabranch.host.wireguard import private_key, public_key
from anabranch.site.agent import Agent, Reporting
from anabranch.site.bus import make_bus
from anabranch.site.guests import FAREWELL, HOLDING, WIREGUARD, Terms, digest_of, read_features
from anabranch.site.leaf_news import LeafNews
from anabranch.site.outpost import Outpost, OutpostSettings
from anabranch.site.outpost_gauge import OutpostGauge
from anabranch.tree.branch import BranchMember
from anabranch.tree.certificates import CertificateError, Credentials
from anabranch.tree.events import Attached, Detached, Introduced, NodeEvent, Stopped
from anabranch.tree.joining import join
from anabranch.tree.peering import Identity
from anabranch.tree.soleil.messages import ROOT, Endpoint
from anabranch.tree.tokens import JoinToken, parse_token
from anabranch.tree.transport.http import Portal

DEFAULT_PORT = 7443
STATE = Path("/var/lib/anabranch/nodes")
RUN = Path("/run/anabranch")
_AGAIN_S = 3.0
_log = structlog.get_logger("anabranch.node")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the root takes nodes in.

    Attributes:
        host: where its end of the tunnel is, too.
        at: over TCP; none: it is reached by HTTP alone.
        portal: the URL for that.
    """

    host: str
    at: tuple[Endpoint, ...] = ()
    portal: str | None = None


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What the command line says.

    Attributes:
        bus: URL of the site's bus, tried before ``root``; ``site`` is the site's name there.
        token: None: this machine has joined before.
        state: directory for the key and certificate; they stay.
    """

    name: str
    root: Place
    bus: str | None
    site: str
    token: JoinToken | None
    state: Path
    run_dir: Path
    media_ports: tuple[int, int]
    public_addresses: tuple[str, ...]
    access: IPv4Network


def root_endpoint(text: str) -> Endpoint:
    """Read ``HOST``, ``HOST:PORT`` or ``[ADDRESS]:PORT``.

    Raises:
        UsageError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is no place of a root: HOST or HOST:PORT")
    return Endpoint(host, int(port))


def root_place(text: str) -> Place:
    """Read what :func:`root_endpoint` does, or the URL of the root's pages.

    Raises:
        UsageError: it is neither.
    """
    if "://" not in text:
        endpoint = root_endpoint(text)
        return Place(endpoint.host, (endpoint,))
    try:
        url = urlsplit(text)
        usable = url.port != 0 and not url.query and not url.fragment and url.username is None
    except ValueError:
        url, usable = urlsplit(""), False
    if not usable or url.hostname is None or url.scheme not in ("http", "https"):
        raise UsageError("the URL of a root is http://HOST[:PORT] or https://HOST[:PORT]")
    return Place(url.hostname, portal=f"{text.rstrip('/')}/soleil")


def name_of(name: str | None, token: JoinToken | None) -> str:
    """Return the name of the node that this machine is to be.

    Raises:
        UsageError: it is not known, or the token is for another one.
    """
    if token is not None:
        if name not in (None, token.name):
            raise UsageError(f"the token is for {token.name}, not for {name}")
        return token.name
    if name is not None:
        return check_name(name)
    known = sorted(path.name for path in STATE.glob("*")) if STATE.is_dir() else []
    if len(known) != 1:
        raise UsageError("say --token, which the root gave, or --name if this machine has joined")
    return known[0]


def read_token(text: str | None) -> JoinToken | None:
    """Read a token; ``@PATH`` is a file that has it. Raises UsageError."""
    if text is None:
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeError) as error:
            raise UsageError(f"{text[1:]} cannot be read: {error}") from None
    return parse_token(text)


async def run_node(options: NodeOptions, say: Callable[[str], None]) -> None:
    """Be a node until SIGINT, SIGTERM or the root's KILL, and leave nothing of it behind.

    Args:
        say: told what an operator wants to know.

    Raises:
        AnabranchError: it cannot be; whatever it made is removed again.
    """
    if os.geteuid() != 0:
        raise UsageError("a node makes namespaces and switches: use sudo")
    raise_file_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with hold(options.run_dir, f"the node {options.name}"):
        journal = Journal(options.run_dir)
        if any(journal.entries()):
            say("removing what an earlier run left")
            await asyncio.to_thread(journal.undo)
        credentials = Credentials(options.state)
        # Without a look at the outer certificate: that of the TLS inside counts.
        url = options.root.portal
        portal = None if url is None else Portal(url, verify=False)
        identity = await _certified(options, credentials, portal, stop, say)
        if identity is None:
            return
        options.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        run_id = new_id()
        journal.record("run", run_id)
        try:
            await _NodeProcess(
                options, identity, credentials, portal, journal, run_id, stop, say
            ).run()
        finally:
            say("removing processes, namespaces and links")
            await asyncio.to_thread(journal.undo)


async def _certified(
    options: NodeOptions,
    credentials: Credentials,
    portal: Portal | None,
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> Identity | None:
    """Return who this machine is, once the root has certified it; None: told to stop."""
    while not stop.is_set():
        try:
            if options.token is not None:
                ways = () if portal is None else (portal,)
                return await join(options.root.at, options.token, credentials, ways)
            return credentials.identity()
        except CertificateError as error:
            if options.token is None:
                raise UsageError(f"{error}: join with the --token that the root gives") from None
            raise
        except UnavailableError as error:
            with suppress(CertificateError):  # it has joined before: the root may be away
                return credentials.identity()
            say(f"the root cannot be reached: {error}")
        except UsageError as error:
            try:
                identity = credentials.identity()
            except CertificateError:
                raise error from None
            say(f"{error}; going on with the certificate of {identity.name} that is here")
            return identity
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                await stop.wait()
    return None


class _NodeProcess:
    """The agent at work: in the tree, and obeying the root's terms."""

    def __init__(
        self,
        options: NodeOptions,
        identity: Identity,
        credentials: Credentials,
        portal: Portal | None,
        journal: Journal,
        run_id: str,
        stop: asyncio.Event,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._identity = identity
        self._credentials = credentials
        self._portal = portal
        self._bus = (
            make_bus(options.bus, options.site, identity, credentials) if options.bus else None
        )
        self._journal = journal
        self._run_id = run_id
        self._stop = stop
        self._say = say
        self._private = private_key(options.state / "wireguard.key")
        self._api = options.run_dir / "leaf.sock"
        self._news = LeafNews()
        self._outpost: Outpost | None = None
        self._wanted: Terms | None = None
        self._stale = asyncio.Event()
        self._member = BranchMember(identity.name, identity.role, options.root.at)
        self._member.features = {WIREGUARD: public_key(self._private)}
        self._agent = Agent(
            self._member,
            OutpostGauge(self._news, self._children),
            Reporting(),
            on_event=self._happened,
            run_id=run_id,
            credentials=credentials,
            ways=[way for way in (self._bus, portal) if way is not None],
        )

    async def run(self) -> None:
        with listen_unix(self._api) as listener:
            tasks = [
                asyncio.create_task(serve(make_leaf_api(self._news), listener, None), name="api"),
                asyncio.create_task(self._obey(), name="obey the root"),
                asyncio.create_task(self._agent.run(), name="report"),
            ]
            if self._bus is not None:
                self._bus.start()
            self._agent.node.start()
            try:
                stopping = asyncio.create_task(self._stop.wait(), name="stop")
                done, _ = await asyncio.wait(
                    [stopping, *tasks], return_when=asyncio.FIRST_COMPLETED
                )
                stopping.cancel()
                for task in done - {stopping}:
                    task.result()
            finally:
                await self._agent.stop(FAREWELL)
                for way in (self._bus, self._portal):
                    if way is not None:
                        await way.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if self._outpost is not None:
                    await self._outpost.stop()

    def _children(self) -> list[Child]:
        return [] if self._outpost is None else list(self._outpost.children())

    def _happened(self, event: NodeEvent) -> None:
        match event:
            case Attached(parent):
                self._say(f"part of the tree, below {parent}")
            case Detached(reason):
                self._say(f"cut off from the tree: {reason}")
            case Stopped(reason):
                self._say(f"ended by the root: {reason}")
                self._stop.set()
            case Introduced(_, hello):
                try:
                    self._wanted = read_features(hello.features) or self._wanted
                except UsageError as error:
                    _log.error("terms.refused", error=str(error))
                self._stale.set()

    async def _obey(self) -> None:
        """Be what the root's last terms say, for ever."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            terms = self._wanted
            if terms is None:
                continue
            try:
                first = self._outpost is None
                outpost = await self._made()
                if not outpost.keeps(terms):
                    await self._agent.processing.move(None)
                await outpost.take(terms)
                await self._agent.processing.move(outpost.overlay)
            except (AnabranchError, OSError) as error:
                _log.error("terms.failed", error=str(error))
                asyncio.get_running_loop().call_later(_AGAIN_S, self._stale.set)
                continue
            if first:
                self._say(f"serving {terms.site}: {len(terms.ways)} links")
            self._member.features = {**self._member.features, HOLDING: digest_of(terms)}
            with suppress(UnavailableError):  # it is in the next greeting
                self._agent.node.send(self._member.hello(), ROOT)

    async def _made(self) -> Outpost:
        if self._outpost is None:
            settings = OutpostSettings(
                name=self._identity.name,
                role=self._identity.role,
                root=await _address_of(self._options.root.host),
                run_dir=self._options.run_dir,
                run_id=self._run_id,
                credentials=self._credentials,
                private=self._private,
                api=self._api,
                media_ports=self._options.media_ports,
                public_addresses=self._options.public_addresses,
                access=self._options.access,
            )
            self._outpost = Outpost(
                settings, self._journal, self._news, lambda event: _log.info(event.kind)
            )
        return self._outpost


async def _address_of(host: str) -> str:
    """Return the IPv4 address of a host.

    Raises:
        UnavailableError: its name cannot be resolved.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, family=socket.AF_INET)
    except OSError as error:
        raise UnavailableError(f"{host} has no IPv4 address: {error.strerror}") from error
    return str(found[0][4][0])
