"""The journal: what a site made on this machine, so that all of it can be removed again.

Every entry is on disk before the thing it names is made. Removing is idempotent and goes
backwards, so it works after a clean stop, a failure half-way, and a kill -9.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TextIO

import structlog

from anabranch.core.errors import AnabranchError, ConflictError, UsageError
from anabranch.core.files import write_private
from anabranch.host import forwarding, network
from anabranch.host.cgroups import remove_groups
from anabranch.host.process import end_marked

_log = structlog.get_logger("anabranch.host")
TABLE_PREFIX = "anabranch_"
"""Every site's nft table begins with it: the last one to go restores the machine's forwarding."""

Kind = Literal[
    "run", "netns", "netnses", "cgroups", "link", "nft", "forwarding", "forwarding6", "lent"
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing made: a run of children (by mark), namespace, link or nft table.

    ``netnses`` and ``cgroups`` are all whose names begin so: a child makes them as they are needed.
    ``forwarding`` is the machine's of IPv4, ``forwarding6`` that of IPv6, each named by the file
    that keeps what it was before.
    """

    kind: Kind
    name: str


class Journal:
    """The journal file of one site, in its run directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "journal.jsonl"

    def record(self, kind: Kind, name: str) -> None:
        """Write an entry and force it to disk, unless it is there: before making the thing."""
        if Entry(kind, name) in self.entries():
            return
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(Entry(kind, name))) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def forget(self, kind: Kind, name: str) -> None:
        """Strike an entry out, once the thing is removed."""
        gone = Entry(kind, name)
        lines = [json.dumps(asdict(entry)) + "\n" for entry in self.entries() if entry != gone]
        write_private(self._path, "".join(lines).encode())

    @property
    def run(self) -> str | None:
        """The mark of the last run's children; None: there was none."""
        runs = [entry.name for entry in self.entries() if entry.kind == "run"]
        return runs[-1] if runs else None

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, oldest first; a half-written last line is passed over."""
        with suppress(FileNotFoundError):
            for line in self._path.read_text().splitlines():
                with suppress(ValueError, TypeError):
                    yield Entry(**json.loads(line))

    def undo(self) -> int:
        """Remove everything in the journal, then the run directory; return how many entries."""
        entries = list(self.entries())
        # Children first: a namespace lives on unseen while a process is in it.
        for entry in entries:
            if entry.kind == "run":
                end_marked(entry.name)
        for entry in reversed(entries):
            try:
                _undo(entry)
            except (OSError, AnabranchError) as error:
                _log.warning("undo.failed", kind=entry.kind, name=entry.name, error=str(error))
        if entries:  # a directory without a journal is none of ours
            shutil.rmtree(self.directory, ignore_errors=True)
        return len(entries)


def _undo(entry: Entry) -> None:
    match entry.kind:
        case "netns":
            network.remove_namespace(entry.name)
        case "netnses":
            for name in network.namespaces(entry.name):
                network.remove_namespace(name)
        case "cgroups":
            remove_groups(entry.name)
        case "link":
            network.remove_link(entry.name)
        case "nft":
            forwarding.remove_table(entry.name)
        case "forwarding":
            forwarding.release_forwarding("ip", Path(entry.name), TABLE_PREFIX)
        case "forwarding6":
            forwarding.release_forwarding("ip6", Path(entry.name), TABLE_PREFIX)
        case "lent":
            device, _, namespace = entry.name.partition("@")
            network.take_back(device, namespace)
        case "run":
            pass


@contextmanager
def hold(directory: Path, what: str) -> Iterator[None]:
    """Hold the lock of a site; the operating system frees it however its holder ends.

    Raises:
        ConflictError: another process holds it.
        UsageError: this user cannot have a lock there.
    """
    # Beside the directory, not in it: the directory is removed while the lock is held.
    path = directory.with_name(directory.name + ".lock")
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(_open_lock(path))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip() or "unknown"
                raise ConflictError(f"{what} is running already (process {who})") from None
            if os.fstat(file.fileno()).st_nlink:
                break  # else its last holder removed it between our opening and our locking
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_lock(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise UsageError(f"cannot use {error.filename}: {error.strerror}") from error


def holder(directory: Path) -> int | None:
    """Return the process that holds the lock of a site, or None if nobody does."""
    path = directory.with_name(directory.name + ".lock")
    try:
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else None
    except OSError:
        pass
    return None
