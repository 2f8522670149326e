"""What operators ask of the fabric, kept where it outlives whoever carries it.

An operator's intents, paths past virtual machines and declared links are one document, that of
:mod:`.intents_json`. It is written after every change, and wanted again by whoever comes next in
one step with everything else, so that the switches' rules stay untouched. What cannot be wanted
again is left out and told, and stays in the document.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Protocol

import structlog
from sqlalchemy import select, update

from anabranch.core.errors import UnavailableError
from anabranch.core.files import write_private
from anabranch.core.names import new_id
from anabranch.fabric import intents_json
from anabranch.fabric.compiler import Compiler
from anabranch.fabric.errors import FabricError, MisuseError
from anabranch.fabric.intents import Egress, Flow, Intents, Tap
from anabranch.fabric.intents_json import DeclaredLink, Wanted, declared_links
from anabranch.fabric.model import Link, LinkInfo, Network
from anabranch.fabric.pathlogic.logic import Path
from anabranch.store.database import Database, StoreError, WishRow

OPERATOR = "operator"
"""Whose intents those are that somebody asks for by hand."""
_log = structlog.get_logger("anabranch.fabric")


class WishStore(Protocol):
    """Where the document is kept. All methods raise ``UnavailableError`` or ``FabricError``."""

    async def load(self) -> bytes | None:
        """Return the document; None: there is none yet."""

    async def save(self, document: bytes) -> None:
        """Replace the document, whole or not at all."""

    async def set_aside(self) -> str:
        """Keep the present document under another name, which is returned."""


class StoredWishes:
    """The document in the site's store. All methods raise ``StoreError`` if it fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> bytes | None:
        async with self._database.transaction() as session:
            document = await session.scalar(
                select(WishRow.document).where(WishRow.name == OPERATOR)
            )
            return None if document is None else document.encode()

    async def save(self, document: bytes) -> None:
        async with self._database.transaction() as session:
            await session.merge(
                WishRow(name=OPERATOR, document=document.decode(), written=time.time())
            )

    async def set_aside(self) -> str:
        name = f"{OPERATOR}-{new_id()}"
        async with self._database.transaction() as session:
            await session.execute(update(WishRow).where(WishRow.name == OPERATOR).values(name=name))
        return name


class WishFile:
    """The document in a file of its owner's alone. All methods raise ``FabricError``."""

    def __init__(self, path: FilePath) -> None:
        self._path = path

    async def load(self) -> bytes | None:
        if not self._path.parent.is_dir():
            raise FabricError(f"cannot keep the state {self._path}: no such directory")
        try:
            return await asyncio.to_thread(self._path.read_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FabricError(f"cannot read the state {self._path}: {error.strerror}") from error

    async def save(self, document: bytes) -> None:
        try:
            await asyncio.to_thread(write_private, self._path, document)
        except OSError as error:
            raise FabricError(f"cannot keep the state {self._path}: {error.strerror}") from error

    async def set_aside(self) -> str:
        aside = self._path.with_name(f"{self._path.name}.{new_id()}")
        try:
            await asyncio.to_thread(self._path.rename, aside)
        except OSError as error:
            raise FabricError(f"cannot keep the state {aside}: {error.strerror}") from error
        return str(aside)


class Wishing(Protocol):
    """What is needed of a fabric."""

    def intents(self, owner: str | None = None) -> Intents: ...

    def followed(self) -> Mapping[str, Path]: ...

    def declared(self) -> Mapping[Link, LinkInfo]: ...


class Restoring(Wishing, Protocol):
    """What is needed of one that begins anew."""

    async def restore(
        self, wanted: Mapping[str, Intents], paths: Collection[Path]
    ) -> frozenset[str]: ...

    def declare(self, links: Mapping[Link, LinkInfo]) -> None: ...


class Wishes:
    """The operators' wishes. Use: :meth:`load`, then :meth:`restore`, then :meth:`changing`.

    Args:
        store: where they are kept; None: nowhere, and there is nothing to restore.
    """

    def __init__(self, store: WishStore | None = None) -> None:
        self._store = store
        self._changing = asyncio.Lock()
        self._kept = Wanted()
        self._given: tuple[Path, ...] = ()
        self._refused: dict[str, str] = {}
        self._document: bytes | None = None
        self._foreign = False
        self.restored = store is None

    @property
    def kept(self) -> Wanted:
        """What is kept, also what cannot be wanted now."""
        return self._kept

    async def load(self) -> None:
        """Read what is kept. What this version does not understand stays where it is.

        Raises:
            UnavailableError: the store cannot be read.
            FabricError: the file cannot.
        """
        if self._store is None:
            return
        self._document = await self._store.load()
        self._kept, self._foreign = Wanted(), False
        try:
            if self._document is not None:
                self._kept = intents_json.load_wanted(self._document)
        except MisuseError as error:
            self._foreign = True
            _log.error("wishes.not_understood", error=str(error))

    async def restore(self, fabric: Restoring, given: Wanted) -> frozenset[str]:
        """Want what is kept, together with ``given``, in one step.

        Returns and raises as :meth:`Fabric.restore`; what is kept is never the cause.
        """
        self.restored = True  # before anybody else has his turn, the fabric wants it
        self._given = given.paths
        try:
            pending, refused = await restore(fabric, self._kept, given)
        except MisuseError:
            self.restored = False
            raise
        self.refuse(refused)
        return pending

    def stand_by(self) -> None:
        """Allow no change until :meth:`restore`: another carries the wishes now."""
        self.restored = self._store is None

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Take it that of what is kept, this cannot be wanted now: names and reasons."""
        for name in reasons.keys() - self._refused.keys():
            _log.error("wish.not_restored", name=name, reason=reasons[name])
        self._refused = dict(reasons)

    @asynccontextmanager
    async def changing(self, fabric: Wishing) -> AsyncIterator[None]:
        """Have what an operator changes in the block kept, however the block ends.

        Raises:
            UnavailableError: what is kept was not restored yet, or the change cannot be kept.
        """
        async with self._changing:
            if not self.restored:
                raise UnavailableError("what was asked for before is not restored yet; try again")
            try:
                yield
            finally:  # also what a switch refused is wanted
                paths = (p for p in fabric.followed().values() if p not in self._given)
                links = declared_links(fabric.declared())
                await self.keep(Wanted({OPERATOR: fabric.intents(OPERATOR)}, tuple(paths), links))

    async def keep(self, wanted: Wanted) -> None:
        """Keep exactly this, and what cannot be wanted now.

        Raises:
            UnavailableError: it cannot be kept; it will be with the next change.
        """
        anew = names_of(wanted)
        self._refused = {name: why for name, why in self._refused.items() if name not in anew}
        self._kept = _joined(wanted, self._kept, self._refused.keys() & names_of(self._kept))
        document = intents_json.dump_wanted(self._kept)
        if self._store is None or document == self._document:
            return
        if self._document is None and not names_of(self._kept):
            return
        try:
            if self._foreign:
                where = await self._store.set_aside()
                self._foreign = False
                _log.warning("wishes.set_aside", name=where)
            await self._store.save(document)
        except (StoreError, FabricError) as error:
            raise type(error)(f"it is wanted, but not beyond the next restart: {error}") from error
        self._document = document


async def restore(
    fabric: Restoring, kept: Wanted, given: Wanted
) -> tuple[frozenset[str], dict[str, str]]:
    """Want ``given``, and of ``kept`` what does not contradict it, in one step.

    Returns: the switches that are away, and why what was left out was, by name.

    Raises:
        MisuseError: ``given`` contradicts itself; nothing has changed.
        FabricError: as :meth:`Fabric.restore`.
    """
    cut = _declare(fabric, kept.links)
    try:
        return await _want(fabric, kept, given), cut
    except MisuseError as error:
        reason = str(error)
    agreed, refused = agreeing(kept, given)
    try:
        return await _want(fabric, agreed, given), {**cut, **refused}
    except MisuseError:  # what contradicts is only to be seen in this network
        refused = dict.fromkeys(names_of(replace(kept, links=())), reason)
        return await _want(fabric, Wanted(), given), {**cut, **refused}


def _declare(fabric: Restoring, links: Collection[DeclaredLink]) -> dict[str, str]:
    """Have exactly these links declared; return the names of those that cannot be, and why."""
    refused: dict[str, str] = {}
    declared: dict[Link, LinkInfo] = {}
    try:
        fabric.declare({each.link: each.info for each in links})
    except MisuseError:
        fabric.declare({})
        for each in links:
            try:
                fabric.declare({**declared, each.link: each.info})
                declared[each.link] = each.info
            except MisuseError as error:
                refused[each.name] = str(error)
    return refused


async def _want(fabric: Restoring, kept: Wanted, given: Wanted) -> frozenset[str]:
    return await fabric.restore({**given.intents, **kept.intents}, (*given.paths, *kept.paths))


def agreeing(kept: Wanted, given: Wanted) -> tuple[Wanted, dict[str, str]]:
    """Return what of ``kept`` can be wanted beside ``given``, and the others' names and reasons.

    Links contradict no intents: they are left as they are.
    """
    compiler = Compiler()
    flows = [flow for intents in given.intents.values() for flow in intents.flows]
    flows += map(_bare, given.paths)
    taps = [tap for intents in given.intents.values() for tap in intents.taps]
    refused: dict[str, str] = {}

    def agrees(wish: Flow | Tap) -> bool:
        nonlocal flows, taps
        more = ([*flows, wish], taps) if isinstance(wish, Flow) else (flows, [*taps, wish])
        try:
            compiler.compile(Intents(tuple(more[0]), tuple(more[1])), Network())
        except MisuseError as error:
            refused[wish.name] = str(error)
            return False
        flows, taps = more
        return True

    intents = {
        owner: Intents(
            tuple(flow for flow in wanted.flows if agrees(flow)),
            tuple(tap for tap in wanted.taps if agrees(tap)),
        )
        for owner, wanted in kept.intents.items()
    }
    paths = tuple(path for path in kept.paths if agrees(_bare(path)))
    return Wanted(intents, paths, kept.links), refused


def _bare(path: Path) -> Flow:
    """Return what a path is in any network, without the machines on its way."""
    return Flow(path.name, path.match, path.ingress, frozenset({Egress(path.exit)}))


def names_of(wanted: Wanted) -> frozenset[str]:
    """Return the names of everything in it."""
    intents = (intents.names for intents in wanted.intents.values())
    links = (link.name for link in wanted.links)
    return frozenset(path.name for path in wanted.paths).union(links, *intents)


def _joined(wanted: Wanted, kept: Wanted, left: Collection[str]) -> Wanted:
    """Return ``wanted``, and of ``kept`` what has one of the names ``left``."""
    if not left:
        return wanted
    intents = dict(wanted.intents)
    for owner, old in kept.intents.items():
        new = intents.get(owner, Intents())
        intents[owner] = Intents(
            (*new.flows, *(flow for flow in old.flows if flow.name in left)),
            (*new.taps, *(tap for tap in old.taps if tap.name in left)),
        )
    paths = (path for path in kept.paths if path.name in left)
    links = (link for link in kept.links if link.name in left)
    return Wanted(intents, (*wanted.paths, *paths), (*wanted.links, *links))
