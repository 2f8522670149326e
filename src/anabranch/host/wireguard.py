"""WireGuard (Donenfeld, NDSS 2017): one interface with its peers, under links between machines.

The kernel's own where there is one, else Debian's ``wireguard-go`` as a supervised child. Either
way the interface is made in this process's network namespace, where its UDP socket stays, and then
moved into another, which so has no other way out than the tunnel.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from anabranch.core.errors import UsageError
from anabranch.core.files import write_private
from anabranch.host import network
from anabranch.host.process import Child, ChildSpec, ProcessError, run_command

MTU = 1420
"""Of the interface: 1500 bytes less IPv6, UDP and WireGuard's own 32."""
KEEPALIVE_S = 20
"""NATs forget a UDP mapping after 30 s, some of them."""
_KEY_BYTES = 32
_APPEAR_S = 5.0
_DUMP_FIELDS = 8
_SOCKETS = Path("/var/run/wireguard")
_HOST = re.compile(r"[A-Za-z0-9.:-]{1,253}")
_log = structlog.get_logger("anabranch.host")


@dataclass(frozen=True, slots=True)
class Peer:
    """A far end.

    Attributes:
        public_key: 32 bytes in base64.
        allowed: the source addresses that are believed it, and the destinations it gets.
        endpoint: host and UDP port where it is dialled; None: it dials.
        keepalive_s: seconds between packets that keep a NAT's mapping; 0: none are sent.
    """

    public_key: str
    allowed: tuple[IPv4Network, ...]
    endpoint: tuple[str, int] | None = None
    keepalive_s: int = 0


def private_key(path: Path) -> str:
    """Return the key kept at ``path``, base64; drawn there, once, with mode 0600.

    Raises:
        UsageError: the file holds something else.
        OSError: it cannot be read or written.
    """
    if not path.exists():
        drawn = X25519PrivateKey.generate().private_bytes_raw()
        write_private(path, base64.b64encode(drawn) + b"\n")
    key = path.read_text("ascii", errors="replace").strip()
    try:
        check_key(key)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return key


def public_key(private: str) -> str:
    """Return the public key that belongs to a private one, both base64."""
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def check_key(text: str) -> str:
    """Return ``text`` if it is a key in base64.

    Raises:
        UsageError: it is not; the message does not repeat it.
    """
    try:
        raw = base64.b64decode(text.encode("ascii", "strict"), validate=True)
    except (UnicodeError, binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES or base64.b64encode(raw).decode() != text:
        raise UsageError("not a WireGuard key: 32 bytes in base64")
    return text


def configuration(private: str, port: int | None, peers: Iterable[Peer]) -> str:
    """Return a configuration as wg(8) reads it.

    Args:
        private: the interface's own key, base64.
        port: UDP port where it listens; None: any.

    Raises:
        UsageError: a key or host name is none.
    """
    lines = ["[Interface]", f"PrivateKey = {check_key(private)}"]
    if port is not None:
        lines.append(f"ListenPort = {port}")
    for peer in peers:
        lines += ["[Peer]", f"PublicKey = {check_key(peer.public_key)}"]
        lines.append(f"AllowedIPs = {', '.join(map(str, peer.allowed))}")
        if peer.endpoint is not None:
            host, at = peer.endpoint
            if not _HOST.fullmatch(host):
                raise UsageError(f"{host[:60]!r} is no name or address of a host")
            lines.append(f"Endpoint = {f'[{host}]' if ':' in host else host}:{at}")
        if peer.keepalive_s:
            lines.append(f"PersistentKeepalive = {peer.keepalive_s}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What an interface knows of a peer.

    Attributes:
        endpoint: where it was last heard from; None: never.
        heard_at: when its last handshake was, seconds since the epoch; None: never.
        rx_bytes, tx_bytes: of the tunnel.
    """

    endpoint: tuple[str, int] | None
    heard_at: float | None
    rx_bytes: int
    tx_bytes: int


def read_dump(text: str) -> dict[str, PeerStatus]:
    """Read what ``wg show DEVICE dump`` prints; lines of another form are passed over."""
    found = {}
    for line in text.splitlines()[1:]:  # the first is about the interface
        fields = line.split("\t")
        if len(fields) != _DUMP_FIELDS:
            continue
        key, _, at, _, heard, rx, tx, _ = fields
        host, _, port = at.rpartition(":")
        with suppress(ValueError):
            found[key] = PeerStatus(
                (host.strip("[]"), int(port)) if host else None,
                float(heard) or None,
                int(rx),
                int(tx),
            )
    return found


class Interface:
    """One WireGuard interface of this machine.

    Args:
        device: its name, unique on this machine, at most 15 characters.
        namespace: where it is moved.
        address: its address there; the network is reached through it.
        private: its key, base64.
        run_id: mark of the child, see :mod:`anabranch.host.process`.
        port: UDP port where it listens; None: any.
        forward: pass packets on between peers.
    """

    def __init__(
        self,
        device: str,
        namespace: str,
        address: IPv4Interface,
        private: str,
        run_id: str,
        *,
        port: int | None = None,
        forward: bool = False,
    ) -> None:
        self.device = device
        self.namespace = namespace
        self.address = address
        self._private = private
        self._port = port
        self._forward = forward
        self._peers: tuple[Peer, ...] = ()
        self._seen_at: dict[str, tuple[str, int]] = {}
        self._changing = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None
        self._there = False
        self._lives = 0
        self.child = Child(
            ChildSpec(
                name=f"wireguard:{device}",
                argv=("wireguard-go", "-f", device),
                env={"LOG_LEVEL": "error"},
                stop_timeout=2.0,
                first_delay=0.05,
                max_delay=2.0,
            ),
            run_id,
            on_line=self._line,
            on_start=self._started,
        )

    async def start(self) -> None:
        """Have the interface there, without peers.

        Raises:
            ProcessError: neither the kernel nor wireguard-go can be had, or the UDP port is taken.
            NetworkError: it cannot be moved or addressed.
        """
        if await self._make_in_kernel():
            await self._prepare()
            return
        await self.child.start()
        try:
            await self._prepare()
        except BaseException:
            await self.stop()
            raise

    async def set_peers(self, peers: Iterable[Peer]) -> None:
        """Have exactly these peers; those that stay do not notice.

        Raises:
            UsageError: a key or host name is none.
            ProcessError: wg(8) refuses it.
        """
        peers = tuple(peers)
        configuration(self._private, self._port, peers)
        async with self._changing:
            self._peers = peers
            if self._there:
                await self._tell(peers)

    async def status(self) -> dict[str, PeerStatus]:
        """Return what is known of each peer, by public key.

        Where they are is remembered: should the interface be made anew, they are dialled there, and
        need not find out first that their session is gone, which takes 15 s.

        Raises:
            ProcessError: the interface is not there.
        """
        found = read_dump(await self._wg("show", self.device, "dump"))
        self._seen_at |= {key: at.endpoint for key, at in found.items() if at.endpoint is not None}
        return found

    async def renew(self) -> None:
        """Begin new sessions with all peers, since they have lost theirs.

        Raises:
            ProcessError: the interface is not there.
        """
        async with self._changing:
            for peer in self._peers:
                await self._wg("set", self.device, "peer", peer.public_key, "remove")
            await self._tell(self._peers)

    async def stop(self) -> None:
        """Remove the interface. Safe to call twice."""
        if self._again is not None:
            self._again.cancel()
            await asyncio.gather(self._again, return_exceptions=True)
        self._there = False
        await self.child.stop()
        await asyncio.to_thread(network.remove_link, self.device, self.namespace)
        self._socket.unlink(missing_ok=True)

    @property
    def _socket(self) -> Path:
        return _SOCKETS / f"{self.device}.sock"

    async def _make_in_kernel(self) -> bool:
        with suppress(ProcessError):
            await run_command("ip", "link", "add", self.device, "type", "wireguard")
            return True
        return False

    def _line(self, _stream: str, line: str) -> None:
        if line.startswith("ERROR"):  # else it is the advice to use the kernel's
            _log.warning("wireguard.error", device=self.device, line=line)

    def _started(self, _pid: int) -> None:
        self._lives += 1
        if self._lives > 1:  # its device went with it
            self._there = False
            self._again = asyncio.create_task(self._restore(), name=f"restore:{self.device}")

    async def _restore(self) -> None:
        try:
            await self._prepare()
        except (ProcessError, network.NetworkError) as error:
            _log.error("wireguard.not_restored", device=self.device, error=str(error))
            self.child.kill()

    async def _prepare(self) -> None:
        """Move the interface that has just been made, and tell it everything."""
        async with self._changing:
            await self._until_there()
            await asyncio.to_thread(
                network.place_device,
                self.device,
                self.namespace,
                self.address,
                mtu=MTU,
                forward=self._forward,
            )
            await self._tell(map(self._greeted, self._peers))
            self._there = True

    def _greeted(self, peer: Peer) -> Peer:
        """Return a peer so that it is dialled where it was last, and at once."""
        at = self._seen_at.get(peer.public_key)
        if peer.endpoint is not None or at is None:
            return peer
        return replace(peer, endpoint=at, keepalive_s=KEEPALIVE_S)

    async def _until_there(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _APPEAR_S
        while not await self._is_there():
            if loop.time() > deadline:
                last = self.child.last_lines[-1] if self.child.last_lines else "it does not come"
                raise ProcessError(f"the WireGuard interface {self.device}: {last}")
            await asyncio.sleep(0.02)

    async def _is_there(self) -> bool:
        if not self._lives:
            return await asyncio.to_thread(network.has_device, self.device)
        # wireguard-go has done with its device, which must not be moved before, when it answers.
        try:
            _, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return False
        writer.close()
        return True

    async def _tell(self, peers: Iterable[Peer]) -> None:
        text = configuration(self._private, self._port, peers)
        await self._wg("syncconf", self.device, "/dev/stdin", stdin=text)

    async def _wg(self, *arguments: str, stdin: str | None = None) -> str:
        return await run_command("wg", *arguments, netns=self.namespace, stdin=stdin)
