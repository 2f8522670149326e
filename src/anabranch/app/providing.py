"""What the commands of ``anabranch provide`` share: options, offers, and how long they run."""

import asyncio
import hashlib
import signal
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer

from anabranch.app.terminal import err
from anabranch.core.errors import UsageError
from anabranch.services.archive import Archive
from anabranch.services.manifest import Manifest
from anabranch.services.provider import Offer

Url = Annotated[str, typer.Option(help="Where nodes fetch the archive.")]
ArchiveFile = Annotated[Path, typer.Option("--archive", help="The same archive here.")]
Ttl = Annotated[int, typer.Option(min=10, help="Seconds that modules outlive this command.")]


def offer_of(archive: Path, url: str, ttl: int, **packets: Any) -> Offer:
    try:
        data = archive.read_bytes()
    except OSError as error:
        raise UsageError(f"{archive}: {error.strerror}") from error
    manifest: Manifest = Archive.parse(data).manifest()
    return Offer(manifest.identity, url, hashlib.sha256(data).digest(), ttl, **packets)


def place_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        address, number = str(ip_address(host)), int(port)
    except ValueError:
        raise UsageError(f"{text!r} is no ADDRESS:PORT, such as 192.0.2.1:5060") from None
    if ":" in address or not 0 < number < 65536:
        raise UsageError(f"{text!r} is no ADDRESS:PORT of IPv4")
    return address, number


def until_interrupted(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def supervised() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        err.print("Running; Ctrl-C ends it.")
        await run()

    try:
        asyncio.run(supervised())
    except asyncio.CancelledError:
        return
    except OSError as error:
        raise UsageError(f"{error.strerror or error}") from error
