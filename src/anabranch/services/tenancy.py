"""Where a node keeps what belongs to tenants: their code, their files, their logs."""

import hashlib
import os
import shutil
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anabranch.host.network import NetworkError, run_tool
from anabranch.services.archive import Archive
from anabranch.services.errors import ServicesError
from anabranch.services.manifest import Manifest

_MAX_LOG = 4 * 1024**2
_SMALLEST_IMAGE_MB = 1
_LINES_PER_S = 50
_MAX_LINE = 2000


class TenancyError(ServicesError):
    """The machine's disk refused something."""


@dataclass(frozen=True, slots=True)
class Home:
    """The directories of one tenant below a node's state directory."""

    path: Path

    @property
    def code(self) -> Path:
        """Unpacked archives, each in a directory named by its digest."""
        return self.path / "code"

    @property
    def image(self) -> Path:
        """The file system image of the tenant's own files."""
        return self.path / "files.img"

    @property
    def log(self) -> Path:
        return self.path / "log"

    def make(self) -> None:
        """Make the directories. Raises TenancyError."""
        try:
            self.code.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.path.chmod(0o755)  # the tenant's process sees its code through it
        except OSError as error:
            raise TenancyError(f"{error.filename}: {error.strerror}") from error

    def have_image(self, megabytes: int) -> None:
        """Have an image of at least this size: on disk it takes what is in it, and no more.

        What is in it stays; a larger one is grown. Blocks while ``mkfs`` or ``resize2fs`` runs.
        Not while it is mounted. Raises TenancyError.
        """
        size = max(megabytes, _SMALLEST_IMAGE_MB) * 1024**2
        try:
            if not self.image.exists():
                made = self.image.with_suffix(".new")
                with made.open("wb") as file:
                    file.truncate(size)
                run_tool("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(made))
                made.rename(self.image)
            elif self.image.stat().st_size < size:
                os.truncate(self.image, size)
                with suppress(NetworkError):  # it says 1 when it corrected something
                    run_tool("e2fsck", "-f", "-p", str(self.image))
                run_tool("resize2fs", str(self.image))
        except (OSError, NetworkError) as error:
            raise TenancyError(f"no directory of {megabytes} MB: {error}") from error

    def unpack(self, archive: Archive, digest: bytes) -> tuple[Path, Manifest]:
        """Unpack an archive, unless it is; return its directory. Raises ArchiveError."""
        directory = self.code / digest.hex()
        if directory.is_dir():
            return directory, archive.manifest()
        return directory, archive.unpack(directory)

    def forget_code(self, kept: frozenset[str]) -> None:
        """Remove unpacked archives but those in directories of these names."""
        for each in self.code.iterdir():
            if each.name not in kept:
                shutil.rmtree(each, ignore_errors=True)


def home_of(state: Path, user: str) -> Home:
    """Return where a user's things are: a name that is not taken as it is gets a digest."""
    plain = user if user.isascii() and user.replace("-", "").isalnum() and len(user) <= 40 else ""
    return Home(state / (plain or hashlib.sha256(user.encode()).hexdigest()[:32]))


@dataclass(slots=True)
class TenantLog:
    """The lines that a sandbox prints, into its tenant's file: not too many, not too long.

    Attributes:
        dropped: lines beyond the rate, or after the file was full and begun anew.
    """

    user: str
    path: Path
    dropped: int = 0
    last: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    _budget: float = _LINES_PER_S
    _filled_at: float = 0.0

    def write(self, line: str, now: float) -> bool:
        """Write a line unless there are too many; ``now`` in monotonic seconds.

        A file that is full becomes ``log.1`` and the one before it goes.
        """
        self._budget = min(self._budget + (now - self._filled_at) * _LINES_PER_S, 4 * _LINES_PER_S)
        self._filled_at = now
        if self._budget < 1:
            self.dropped += 1
            return False
        self._budget -= 1
        clean = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line[:_MAX_LINE])
        self.last.append(clean)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        with suppress(OSError):  # a full disk is no reason to lose the sandbox
            if self.path.exists() and self.path.stat().st_size > _MAX_LOG:
                self.path.rename(self.path.with_suffix(".1"))
            with self.path.open("a") as file:
                file.write(f"{stamp} {clean}\n")
        return True
