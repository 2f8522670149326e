"""Who may write: a lease, and the generation numbers that switches compare.

Of several controllers the holder of the lease is master. On one machine the lease is a lock on a
file, which the kernel frees when its holder dies, however it dies; see
:mod:`anabranch.store.lease` for several machines.
"""

import asyncio
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from anabranch.fabric.errors import FabricError, MisuseError

POLL = 0.05  # seconds between two looks at a lease that somebody else holds
_SPACE = 1 << 64
_WIDTH = 20  # decimal digits of the largest generation: the file never changes its length


def distance(generation: int, since: int) -> int:
    """Return how far ``generation`` is ahead of ``since``; negative: it is stale.

    Both are 64-bit numbers that wrap around (OpenFlow 1.3.5, section 6.3.5).
    """
    ahead = (generation - since) % _SPACE
    return ahead - _SPACE if ahead >= _SPACE // 2 else ahead


class Lease(Protocol):
    """The right to be master. Every generation is greater than the one before."""

    @property
    def held(self) -> bool: ...

    async def check(self) -> None:
        """See that the lease can be had, by whoever holds it now. Raises ``AnabranchError``."""

    async def acquire(self) -> int:
        """Wait until nobody else holds the lease; return the new generation."""

    async def keep(self) -> str:
        """Return, with the reason, when the lease is lost; somebody else may hold it then."""

    def release(self) -> None:
        """Let the next one have it. Safe to call twice."""


class FileLease:
    """The right to be master, as a lock on a file that also counts its holders.

    The file stays when the lease is released: the count in it must never go back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    async def check(self) -> None:
        """See that the lease can be had, by whoever holds it now.

        Raises:
            FabricError: the file cannot be used, or holds something else than a count.
        """
        file = self._open()
        try:
            self._read(file)
        except OSError as error:
            raise FabricError(f"cannot use the lease {self._path}: {error}") from error
        finally:
            os.close(file)

    async def acquire(self) -> int:
        """Wait until nobody else holds the lease; return the new generation, on disk already.

        Raises:
            MisuseError: it is held by this object.
            FabricError: the file cannot be used, or holds something else than a count.
        """
        if self._file is not None:
            raise MisuseError(f"the lease {self._path} is held already")
        file = self._open()
        try:
            while not _locked(file):  # noqa: ASYNC110  # the kernel tells nobody
                await asyncio.sleep(POLL)
            generation = self._count(file)
        except BaseException as error:
            os.close(file)
            if isinstance(error, OSError):
                raise FabricError(f"cannot use the lease {self._path}: {error}") from error
            raise
        self._file = file
        return generation

    async def keep(self) -> str:
        """Wait for ever: nobody can take a lock from its holder."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    def release(self) -> None:
        """Let the next one have it. Safe to call twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FabricError(f"cannot use the lease {self._path}: {error.strerror}") from error

    def _read(self, file: int) -> int:
        text = os.pread(file, 4096, 0).decode(errors="replace").strip()
        if text and not (text.isascii() and text.isdigit() and len(text) <= _WIDTH):
            raise FabricError(f"{self._path} is no lease: it holds {text[:40]!r}")
        return int(text or 0)

    def _count(self, file: int) -> int:
        generation = (self._read(file) + 1) % _SPACE
        os.pwrite(file, f"{generation:0{_WIDTH}d}\n".encode(), 0)
        os.fsync(file)
        return generation


def _locked(file: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
