"""``anabranch module install|probe|remove``: signed messages towards a destination."""

import asyncio
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.terminal import JsonFlag, command, err, out
from anabranch.core.errors import AnabranchError, UsageError
from anabranch.services.controller.routability import PORT as PROOF_PORT
from anabranch.services.errors import MessageError
from anabranch.services.keys import PrivateKey
from anabranch.services.node.sending import Signaller, proving, resolve, signalling
from anabranch.services.signalling import request as requests
from anabranch.services.signalling import response as responses
from anabranch.services.signalling.compose import Author, compose, setup_headers
from anabranch.services.signalling.message import ANY_MODULE, Method
from anabranch.services.signalling.message import parse as parse_message
from anabranch.services.signalling.request import encode_base64
from anabranch.services.signalling.response import Hop
from anabranch.services.signalling.sender import Result

_MAX_ARCHIVE = 64 * 1024 * 1024
_PATIENCE = 20.0  # seconds for an archive


class SignallingFailedError(AnabranchError):
    """No node answered, or one that did refused."""


Name = Annotated[str, typer.Argument(help="Module and version: NetMonitor_1.0.0.")]
Towards = Annotated[
    str, typer.Argument(metavar="DESTINATION", help="A host; the nodes on the way to it are meant.")
]
UserName = Annotated[
    str,
    typer.Option("--user", envvar="ANABRANCH_MODULE_USER", help="As the nodes know you."),
]
KeyFile = Annotated[
    Path,
    typer.Option("--key", envvar="ANABRANCH_MODULE_KEY", help="Your private key, PEM or OpenSSH."),
]
NodeId = Annotated[str | None, typer.Option(help="Only this node.")]
Source = Annotated[
    str | None, typer.Option(help="The address that filters protect; without it, your own.")
]


def add_send_commands(app: typer.Typer) -> None:
    """Add the commands to ``anabranch module``."""
    app.command("install")(install)
    app.command("probe")(probe)
    app.command("remove")(remove)


@dataclass(frozen=True, slots=True)
class _Sending:
    """What all three commands have in common."""

    author: Author
    towards: str
    source: str | None = None
    back: bool = False

    @classmethod
    def of(cls, user: str, key: Path, towards: str, **more: Any) -> "_Sending":
        password = os.environ.get("ANABRANCH_MODULE_KEY_PASSWORD")
        private = PrivateKey.load(key, password.encode() if password else None)
        return cls(Author(user, private), towards, **more)

    def message(self, method: Method, name: str, headers: Mapping[str, str | None]) -> bytes:
        """Return a signed request."""
        return compose(
            self.author, method, name, headers,
            wall_time=time.time(), nonce=secrets.token_bytes(16),
        )  # fmt: skip

    async def send(
        self,
        make: Callable[[str], bytes],
        *,
        proof_port: int | None = None,
        keep: float | None = None,
        show: Callable[[list[Hop]], None] = lambda hops: None,
    ) -> list[Hop]:
        """Send what ``make`` returns for the protected address, and return the nodes' answers.

        ``keep``: send it anew every so many seconds, until it fails or is interrupted.

        Raises:
            SignallingFailedError: nobody answered.
        """
        async with signalling() as signaller, AsyncExitStack() as proofs:
            destination = await resolve(self.towards)
            source = await resolve(self.source) if self.source else None
            session = signaller.session(destination, source=source)
            protected = str(source or signaller.source_towards(destination))
            while True:
                data = make(protected)
                if proof_port is not None:
                    request = requests.parse(data)
                    await proofs.enter_async_context(_proofs(request, proof_port))
                hops = await self._asked(signaller, session, data)
                if keep is None or not any(hop.ok for hop in hops):
                    return hops
                show(hops)
                await proofs.aclose()
                signaller.keep(session, 2 * keep + 60)
                await asyncio.sleep(keep)

    async def _asked(self, signaller: Signaller, session: bytes, data: bytes) -> list[Hop]:
        if self.back:
            content = {"message": encode_base64(data)}
            data = self.message(Method.TRIGGER, ANY_MODULE, content)
        return _answers(await signaller.ask(session, data), back=self.back)


def _proofs(request: requests.Request, port: int) -> Any:
    return proving([request], "", port)


def _answers(result: Result, *, back: bool) -> list[Hop]:
    if result.response is None:
        raise SignallingFailedError(f"nobody answered: {result.reason}")
    hops = list(result.response.hops)
    if back:
        if not result.response.inner:
            refusals = "; ".join(f"{hop.node_id}: {hop.reason}" for hop in hops)
            raise SignallingFailedError(f"nothing came back: {refusals or 'no node turned it'}")
        hops = list(responses.read(parse_message(result.response.inner)).hops)
    if not hops:
        raise SignallingFailedError("no node on the path was meant: is that its node-id?")
    return hops


@command
def install(
    name: Name,
    destination: Towards,
    user: UserName,
    key: KeyFile,
    url: Annotated[str, typer.Option(help="Where the nodes fetch the archive.")],
    archive: Annotated[
        Path | None, typer.Option(help="The same archive here; without it, it is fetched.")
    ] = None,
    ttl: Annotated[int, typer.Option(help="Seconds until it is removed.")] = 3600,
    filter: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Packets it gets: udp:5060, tcp:80,443, icmp.")
    ] = None,
    filter_dst: Annotated[
        str | None, typer.Option(help="Their destination; without it, your own address.")
    ] = None,
    property_: Annotated[
        list[str] | None, typer.Option("--property", "-p", help="NAME=VALUE for the module.")
    ] = None,
    dependency: Annotated[
        list[str] | None, typer.Option(help="Only where this is: NAME or NAME_VERSION.")
    ] = None,
    notify: Annotated[str | None, typer.Option(help="XML-RPC URL to call afterwards.")] = None,
    node_id: NodeId = None,
    source: Source = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Prove that the filter's destination is yours.")
    ] = False,
    prove_port: Annotated[int, typer.Option(help="Where nodes come for proof.")] = PROOF_PORT,
    keep: Annotated[
        bool, typer.Option("--keep", help="Renew it every half ttl, until Ctrl-C.")
    ] = False,
    back: Annotated[
        bool, typer.Option("--back", help="On the way back from the last node (TRIGGER).")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Install a module on the nodes on the way to a destination."""
    sending = _Sending.of(user, key, destination, source=source, back=back)
    digest = _digest(archive, url)
    protocol, ports = _filter(filter)
    password = secrets.token_urlsafe(24) if prove else None

    def make(protected: str) -> bytes:
        headers = setup_headers(
            url,
            digest,
            ttl,
            filter_dst=filter_dst or (protected if filter else None),
            filter_proto=protocol,
            filter_ports=ports,
            dependencies=dependency or (),
            properties=_properties(property_ or []),
            notification=notify,
            node_id=node_id,
            password=password,
        )
        return sending.message(Method.SETUP, name, headers)

    def show(hops: list[Hop]) -> None:
        _print(hops, as_json=as_json)

    hops = _run(
        sending.send(
            make,
            proof_port=prove_port if prove else None,
            keep=max(1.0, ttl / 2) if keep else None,
            show=show,
        )
    )
    if hops is not None:
        _finish(hops, as_json=as_json)


@command
def probe(
    destination: Towards,
    user: UserName,
    key: KeyFile,
    name: Annotated[str, typer.Argument(help="A module; * for all of yours.")] = ANY_MODULE,
    what: Annotated[
        str, typer.Option(help="node-id, address, capabilities, building-blocks, status, policy.")
    ] = "address,status",
    node_id: NodeId = None,
    back: Annotated[bool, typer.Option("--back", help="On the way back (TRIGGER).")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask the nodes on the way to a destination what they are and have."""
    sending = _Sending.of(user, key, destination, back=back)
    headers: dict[str, str | None] = {"probe": what, "node-id": node_id}
    hops = _run(sending.send(lambda _: sending.message(Method.PROBE, name, headers)))
    if hops is not None:
        _finish(hops, as_json=as_json)


@command
def remove(
    name: Name,
    destination: Towards,
    user: UserName,
    key: KeyFile,
    notify: Annotated[str | None, typer.Option(help="XML-RPC URL to call afterwards.")] = None,
    node_id: NodeId = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove a module from the nodes on the way to a destination."""
    sending = _Sending.of(user, key, destination)
    headers = {"notification": notify, "node-id": node_id}
    hops = _run(sending.send(lambda _: sending.message(Method.REMOVE, name, headers)))
    if hops is not None:
        _finish(hops, as_json=as_json)


def _run(sending: Any) -> list[Hop] | None:
    """Run to the end; None: interrupted while keeping."""
    try:
        hops: list[Hop] = asyncio.run(sending)
    except KeyboardInterrupt:
        return None
    except OSError as error:
        raise UsageError(f"{error.strerror or error}") from error
    return hops


def _digest(archive: Path | None, url: str) -> bytes:
    """Return the SHA-256 of the archive, which the message pins."""
    if archive is not None:
        try:
            with archive.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise UsageError(f"{archive}: {error.strerror}") from error
    found, size = hashlib.sha256(), 0
    try:
        with httpx.stream("GET", url, timeout=_PATIENCE, trust_env=False) as response:
            response.raise_for_status()
            for part in response.iter_raw():
                found.update(part)
                size += len(part)
                if size > _MAX_ARCHIVE:
                    raise UsageError(f"{url}: more than {_MAX_ARCHIVE} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UsageError(f"{url}: {error}") from error
    return found.digest()


def _filter(text: str | None) -> tuple[str | None, list[int]]:
    if text is None:
        return None, []
    protocol, _, ports = text.partition(":")
    try:
        return protocol, [int(port) for port in ports.split(",")] if ports else []
    except ValueError as error:
        raise MessageError(f"{text!r} is no filter: udp:5060, tcp:80,443, icmp") from error


def _properties(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise MessageError(f"{one!r} is no NAME=VALUE")
        found[name] = value
    return found


def _print(hops: list[Hop], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"node": h.node_id, "status": h.status, "reason": h.reason, "details": dict(h.details)}
            for h in hops
        ]
        out.print_json(json.dumps(rows))
        return
    table = Table("Node", "Status", "", "", box=None)
    for hop in hops:
        colour = "green" if hop.ok else "red"
        details = ", ".join(f"{key} {value}" for key, value in hop.details.items())
        status = f"[{colour}]{hop.status}[/{colour}]"
        table.add_row(escape(hop.node_id), status, escape(hop.reason), escape(details))
    out.print(table)


def _finish(hops: list[Hop], *, as_json: bool) -> None:
    """Print the stack; where no node did as asked, the command fails."""
    _print(hops, as_json=as_json)
    if not any(hop.ok for hop in hops):
        err.print("[red]anabranch:[/red] no node did it")
        raise typer.Exit(1)
