"""A cache of files in a directory: bounded in bytes, the least lately used go first.

Each object is one file, named by the hash of its key: a head of 4 KiB with key, description and
length, and then the body. A file gets its name only when it is whole and on disk, so what a power
cut leaves is either whole or is thrown away. The order of use is the files' time of change: it
survives a restart. One process, one thread at a time.
"""

import json
import os
import struct
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from anabranch.services.errors import ServicesError

HEAD_BYTES = 4096
_HEAD = struct.Struct(">8sQI")
_MAGIC = b"abcache1"
_SUFFIX, _PARTIAL = ".object", ".partial"
_SPARE = 1 << 20
"""So many bytes of the disk are left to others."""
_STEP = 1 << 20
"""By so much at most the room grows of an object whose length nobody knows."""

Description = dict[str, str]


class CacheError(ServicesError):
    """An object that cannot be kept."""


class CacheFullError(CacheError):
    """There is no room for an object, whatever else would go."""


class Kept:
    """An object of the cache, open to be read; it can be read on after it was evicted.

    The body begins at :data:`HEAD_BYTES` of the file.

    Attributes:
        description: what was said of it.
        length: bytes of the body.
    """

    def __init__(self, descriptor: int, description: Description, length: int) -> None:
        self._descriptor = descriptor
        self.description = description
        self.length = length

    def fileno(self) -> int:
        return self._descriptor

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes of the body."""
        wanted = min(count, self.length - offset)
        return os.pread(self._descriptor, wanted, HEAD_BYTES + offset) if wanted > 0 else b""

    def rewind(self) -> None:
        """Have the descriptor's offset at the body, for who reads or writes through it."""
        os.lseek(self._descriptor, HEAD_BYTES, os.SEEK_SET)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Growing(Kept):
    """An object on its way into the cache: written at its end, and read meanwhile.

    End it by :meth:`commit` or :meth:`abort`; close it when nobody reads it any more.
    """

    def __init__(self, cache: "DiskCache", key: str, path: Path, description: Description) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        super().__init__(os.open(path, flags, 0o600), description, 0)
        self._cache = cache
        self._key = key
        self._path = path
        self._sealed = False
        self.ended = False

    def write(self, data: bytes) -> None:
        """Append to the body.

        Raises:
            CacheFullError: there is no room; the object is aborted.
        """
        try:
            self._cache.have_room(self._path.name, HEAD_BYTES + self.length + len(data))
            rest = memoryview(data)
            while rest:
                count = os.pwrite(self._descriptor, rest, HEAD_BYTES + self.length)
                self.length += count
                rest = rest[count:]
        except OSError as error:
            self.abort()
            raise CacheFullError(f"the cache's disk: {error.strerror}") from error
        except CacheFullError:
            self.abort()
            raise

    def adopt(self) -> None:
        """Take for the body what somebody else has written through the descriptor.

        Raises:
            CacheFullError: it is more than there is room for; the object is aborted.
        """
        self.length = max(os.fstat(self._descriptor).st_size - HEAD_BYTES, 0)
        self.write(b"")

    def seal(self) -> None:
        """Have it on disk; blocks, and may be called from any thread. Raises CacheError."""
        try:
            os.pwrite(self._descriptor, _head(self._key, self.description, self.length), 0)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise CacheError(f"the cache's disk: {error.strerror}") from error
        self._sealed = True

    def commit(self) -> None:
        """Have it found from now on. Raises CacheError; then it is aborted."""
        if self.ended:
            raise CacheError("it has ended already")
        try:
            if not self._sealed:
                self.seal()
            self._cache.take_in(self._key, self._path, HEAD_BYTES + self.length)
        except CacheError:
            self.abort()
            raise
        except OSError as error:
            self.abort()
            raise CacheError(f"the cache's disk: {error.strerror}") from error
        self.ended = True

    def abort(self) -> None:
        """Give it up; what was written can still be read until it is closed."""
        if not self.ended:
            self.ended = True
            self._path.unlink(missing_ok=True)
            self._cache.give_back(self._path.name)

    def close(self) -> None:
        self.abort()
        super().close()


@dataclass(slots=True)
class DiskCacheFigures:
    """Counters since the cache was opened, and what is in it."""

    hits: int = 0
    misses: int = 0
    evicted: int = 0
    objects: int = 0
    used_bytes: int = 0


class DiskCache:
    """The objects of one directory.

    Args:
        directory: made if need be; what else is in it is removed.
        quota: bytes that all objects have together, on their way in ones included.

    Raises:
        CacheError: the directory cannot be used.
    """

    def __init__(self, directory: Path, quota: int) -> None:
        self._directory = directory
        self._quota = quota
        self._step = min(_STEP, quota >> 6)
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._held: dict[str, int] = {}
        self._kept_bytes = self._held_bytes = 0
        self._made = 0
        self._figures = DiskCacheFigures()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._read_directory()
        except OSError as error:
            raise CacheError(f"{directory}: {error.strerror}") from error
        self._evict_to(quota)

    @property
    def used(self) -> int:
        """Bytes that are taken, or held for what is on its way."""
        return self._kept_bytes + self._held_bytes

    def figures(self) -> DiskCacheFigures:
        self._figures.objects, self._figures.used_bytes = len(self._sizes), self.used
        return self._figures

    def get(self, key: str) -> Kept | None:
        """Return an object, opened, which is the one used last now; None: it is not here."""
        name = _name(key)
        if name not in self._sizes:
            self._figures.misses += 1
            return None
        path = self._directory / name
        try:
            found = _opened(path, key)
            os.utime(path)
        except (OSError, ValueError, RecursionError):
            self._drop(name)
            self._figures.misses += 1
            return None
        self._sizes.move_to_end(name)
        self._figures.hits += 1
        return found

    def begin(self, key: str, description: Description, length: int | None = None) -> Growing:
        """Begin an object; its room is held from now on.

        Args:
            length: of the body, if it is known.

        Raises:
            CacheFullError: it has no room here.
            CacheError: the description is too long, or the disk refuses.
        """
        _head(key, description, 0)  # must fit
        self._made += 1
        name = f"{self._made}{_PARTIAL}"
        self.have_room(name, HEAD_BYTES + (length or 0))
        try:
            return Growing(self, key, self._directory / name, description)
        except OSError as error:
            self.give_back(name)
            raise CacheError(f"the cache's disk: {error.strerror}") from error

    def describe(self, key: str, description: Description) -> None:
        """Change what is said of an object that is here. Raises CacheError."""
        name = _name(key)
        if name not in self._sizes:
            return
        length = self._sizes[name] - HEAD_BYTES
        try:
            descriptor = os.open(self._directory / name, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self._drop(name)
            return
        try:
            os.pwrite(descriptor, _head(key, description, length), 0)
        except OSError as error:
            self._drop(name)
            raise CacheError(f"the cache's disk: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def remove(self, key: str) -> None:
        """Remove an object; one that is not here is no error."""
        if _name(key) in self._sizes:
            self._drop(_name(key))

    # For objects on their way

    def have_room(self, name: str, size: int) -> None:
        """Hold room of ``size`` bytes for an object on its way. Raises CacheFullError."""
        held = self._held.get(name, 0)
        if size <= held:
            return
        most = self._quota - (self._held_bytes - held)
        if size > most:
            raise CacheFullError(f"{size} bytes have no room in a cache of {self._quota}")
        wanted = min(size + self._step, most) if held else size
        self._held[name] = wanted
        self._held_bytes += wanted - held
        self._evict_to(self._quota)
        self._have_disk(wanted - held)

    def give_back(self, name: str) -> None:
        self._held_bytes -= self._held.pop(name, 0)

    def take_in(self, key: str, path: Path, size: int) -> None:
        """Give an object that is whole its name."""
        name = _name(key)
        path.replace(self._directory / name)
        self.give_back(path.name)
        self._kept_bytes += size - self._sizes.pop(name, 0)
        self._sizes[name] = size
        self._evict_to(self._quota)

    # The directory

    def _read_directory(self) -> None:
        found = []
        for path in self._directory.iterdir():
            status = path.lstat()
            if path.suffix == _SUFFIX and path.is_file() and status.st_size >= HEAD_BYTES:
                found.append((status.st_mtime_ns, path.name, status.st_size))
            elif path.is_file() or path.is_symlink():
                path.unlink()
        self._sizes.update((name, size) for _, name, size in sorted(found))
        self._kept_bytes = sum(self._sizes.values())

    def _evict_to(self, quota: int) -> None:
        while self.used > quota and self._sizes:
            self._evict()

    def _have_disk(self, size: int) -> None:
        """Make room on the disk itself, which others may have filled."""
        there = os.statvfs(self._directory)
        lacking = size + _SPARE - there.f_bavail * there.f_frsize
        while lacking > 0 and self._sizes:  # if it is not enough, the write itself will tell
            lacking -= self._evict()

    def _evict(self) -> int:
        self._figures.evicted += 1
        name, size = next(iter(self._sizes.items()))
        self._drop(name)
        return size

    def _drop(self, name: str) -> None:
        self._kept_bytes -= self._sizes.pop(name, 0)
        with suppress(OSError):
            (self._directory / name).unlink(missing_ok=True)


def _name(key: str) -> str:
    return sha256(key.encode()).hexdigest() + _SUFFIX


def _head(key: str, description: Description, length: int) -> bytes:
    said = json.dumps([key, description], separators=(",", ":")).encode()
    head = _HEAD.pack(_MAGIC, length, len(said)) + said
    if len(head) > HEAD_BYTES:
        raise CacheError(f"what is said of {key[:80]!r} is more than {HEAD_BYTES} bytes")
    return head.ljust(HEAD_BYTES, b"\0")


def _opened(path: Path, key: str) -> Kept:
    """Open an object. Raises ValueError: it is none of ours, cut short, or another's."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        head = os.pread(descriptor, HEAD_BYTES, 0)
        if len(head) < HEAD_BYTES:
            raise ValueError("cut short")
        magic, length, size = _HEAD.unpack_from(head)
        if magic != _MAGIC or os.fstat(descriptor).st_size != HEAD_BYTES + length:
            raise ValueError("not one of this cache, or cut short")
        found = json.loads(head[_HEAD.size : _HEAD.size + size])
        if not isinstance(found, list) or len(found) != 2 or found[0] != key:
            raise ValueError("another key")
        if not isinstance(found[1], dict):
            raise ValueError("no description")  # noqa: TRY004 - of a value, not of our types
        return Kept(descriptor, {str(k): str(v) for k, v in found[1].items()}, length)
    except BaseException:
        os.close(descriptor)
        raise
