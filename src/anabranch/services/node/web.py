"""What a node asks of web servers: archives, routability proofs, notifications.

All of it on the word of a signed message, so: http and https only, never to this machine itself
or its link, no redirects, no proxies of the environment, limits on size and time.
"""

import asyncio
import os
import socket
import xmlrpc.client
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import quote, urlsplit

import httpx
import structlog

from anabranch.services.controller import routability
from anabranch.services.controller.controller import NoArchiveError, NotProvedError
from anabranch.services.errors import ServicesError
from anabranch.services.signalling.gist.objects import Address

MAX_ARCHIVE = 64 * 1024 * 1024
MAX_CACHE = 1024 * 1024 * 1024
_FETCH_TIMEOUT = 20.0  # seconds for a whole archive
_ASK_TIMEOUT = 5.0
_MAX_ANSWER = 4096
_MAX_NOTIFICATIONS = 256
_log = structlog.get_logger("anabranch.services")


class UnusableUrlError(ServicesError):
    """A URL whose host cannot be found, or is not one that a node would ask."""


class Web:
    """One HTTP client for a node; use it as ``async with``."""

    def __init__(
        self,
        cache: Path,
        *,
        routability_port: int = routability.PORT,
        may_ask: Callable[[Address], bool] = routability.is_public_enough,
    ) -> None:
        """Keep archives in ``cache``, which is made if need be; by their SHA-256.

        ``may_ask`` says to which addresses connections are made.
        """
        self._cache = cache
        self._may_ask = may_ask
        self._routability_port = routability_port
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Web":
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=_ASK_TIMEOUT,
            # one that is kept would be taken for other names at the same address
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def get(self, url: str, digest: bytes) -> Path:
        """Return an archive; see :class:`~anabranch.services.controller.controller.Archives`."""
        path = self._cache / digest.hex()
        if path.exists():
            os.utime(path)  # the oldest go first
            return path
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT):
                await self._fetch(url, digest, path)
        except TimeoutError as error:
            raise NoArchiveError(f"{url}: not there within {_FETCH_TIMEOUT:.0f} s") from error
        except (httpx.HTTPError, UnusableUrlError) as error:
            raise NoArchiveError(f"{url}: {error or type(error).__name__}") from error
        except OSError as error:
            raise NoArchiveError(f"it cannot be kept: {error.strerror}") from error
        self._evict(path)
        return path

    async def _fetch(self, url: str, digest: bytes, path: Path) -> None:
        found, size = sha256(), 0
        with NamedTemporaryFile(dir=self._cache, prefix=".") as file:
            async with self._asked("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise NoArchiveError(f"{url}: {response.status_code}")
                async for part in response.aiter_raw():
                    size += len(part)
                    if size > MAX_ARCHIVE:
                        raise NoArchiveError(f"{url}: more than {MAX_ARCHIVE} bytes")
                    found.update(part)
                    file.write(part)
            if found.digest() != digest:
                raise NoArchiveError(f"{url}: not the archive of that digest")
            file.flush()
            with suppress(FileExistsError):  # somebody else wanted it, too, and was faster
                os.link(file.name, path)

    def _evict(self, keep: Path) -> None:
        files = [path for path in self._cache.iterdir() if not path.name.startswith(".")]
        sizes = {path: path.stat() for path in files}
        total = sum(stat.st_size for stat in sizes.values())
        for path in sorted(files, key=lambda path: sizes[path].st_mtime):
            if total <= MAX_CACHE:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                total -= sizes[path].st_size

    async def prove(self, address: Address, password: str, signature: bytes, node_id: str) -> None:
        """Make the reverse routability check; see :class:`~..controller.controller.World`."""
        host = f"[{address}]" if address.version == 6 else str(address)
        question = routability.question(signature, node_id)
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in question.items())
        url = f"http://{host}:{self._routability_port}{routability.PATH}?{query}"
        try:
            async with asyncio.timeout(_ASK_TIMEOUT), self._asked("GET", url) as response:
                text = await _beginning(response)
        except (httpx.HTTPError, UnusableUrlError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise NotProvedError(f"no proof from {address}: {reason}") from error
        if response.status_code != httpx.codes.OK or not routability.genuine(
            text, password, signature, node_id
        ):
            raise NotProvedError(f"{address} gives no proof for this message")

    def notify(self, url: str, values: Mapping[str, str]) -> None:
        """Call ``netserv.notify`` of an XML-RPC server; one try, in the background."""
        if len(self._tasks) < _MAX_NOTIFICATIONS:
            task = asyncio.create_task(self._notify(url, dict(values)), name="notification")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _notify(self, url: str, values: dict[str, str]) -> None:
        body = xmlrpc.client.dumps((values,), "netserv.notify").encode()
        try:
            async with asyncio.timeout(_ASK_TIMEOUT), self._asked("POST", url, body) as response:
                await _beginning(response)
            if response.is_error:
                _log.warning("notification refused", url=url, status=response.status_code)
        except (httpx.HTTPError, UnusableUrlError, TimeoutError) as error:
            _log.warning("notification failed", url=url, error=str(error) or type(error).__name__)

    @asynccontextmanager
    async def _asked(
        self, method: str, url: str, body: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Make a request to the address that the host has now, checked and then used as it is."""
        assert self._client is not None
        parts = urlsplit(url)
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._resolved(parts.hostname, port)
        host = f"[{address}]" if address.version == 6 else str(address)
        target = parts._replace(netloc=f"{host}:{port}").geturl()
        headers = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "text/xml"
        extensions = {"sni_hostname": parts.hostname}
        async with self._client.stream(
            method, target, headers=headers, content=body, extensions=extensions
        ) as response:
            yield response

    async def _resolved(self, host: str, port: int) -> Address:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except OSError as error:
            raise UnusableUrlError(f"{host}: {error.strerror}") from error
        address = ip_address(str(found[0][4][0]).partition("%")[0])
        if not self._may_ask(address):
            raise UnusableUrlError(f"{host} is {address}, of this machine or its link")
        return address


async def _beginning(response: httpx.Response) -> str:
    """Return the body, as far as it counts."""
    data = b""
    async for part in response.aiter_raw():
        data += part
        if len(data) > _MAX_ANSWER:
            break
    return data[:_MAX_ANSWER].decode(errors="replace")
