"""Whether a director goes on with what an earlier one, which died, has left (docs/decisions/0037).

Only where what is there was made by the same version for the same settings: else everything is
removed and made anew.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace

from anabranch import __version__
from anabranch.app.serving import listen
from anabranch.core.errors import ConflictError
from anabranch.host import holdings
from anabranch.host.holdings import Holdings
from anabranch.host.journal import Journal
from anabranch.host.process import RUN_MARK, end_marked
from anabranch.site.settings import SiteSettings

_NOTE = "director"
_WHAT_IS_MADE = (
    *("name", "database_url", "switches", "nodes", "links", "addresses", "ports", "fabric"),
    *("format", "ladder", "public_addresses", "leaf", "ingress", "remote"),
)
"""The settings that what is made on the machine depends on."""


def may_outlive(settings: SiteSettings) -> bool:
    """Say whether what a site is made of outlives its director.

    Not yet where others have a part in it: nodes of other machines, controllers of their own, the
    ingress.
    """
    return (
        settings.remote is None and not settings.ingress.enabled and not settings.fabric.controllers
    )


def fingerprint(settings: SiteSettings) -> str:
    """Return what must be equal for one director to go on where another ended."""
    return repr((__version__, *(getattr(settings, name) for name in _WHAT_IS_MADE)))


@asynccontextmanager
async def succeeding(settings: SiteSettings, journal: Journal) -> AsyncIterator[SiteSettings]:
    """Go on with an earlier run if one left what can be used, else remove what it left.

    Yields the settings with the mark of the run that goes on. At the end of the block, which a
    director that dies does not come to, all children are ended.
    """
    kept = await _found(settings, journal)
    if kept is not None:
        assert journal.run is not None
        settings = replace(settings, run_id=journal.run)
        # Who is not to outlive a director has outlived it all the same.
        living = {kept.pid or 0, *kept.left().values()}
        await asyncio.to_thread(end_marked, settings.run_id, but=living)
    else:
        await asyncio.to_thread(journal.undo)
        kept = _holdings(settings, settings.run_id)
    if not may_outlive(settings):
        yield settings
        return
    with holdings.keeping(settings.run_id, kept):
        try:
            yield settings
        finally:
            await kept.close()


async def _found(settings: SiteSettings, journal: Journal) -> Holdings | None:
    """Return what can be used of an earlier run; what can not is ended."""
    run_id = journal.run
    if run_id is None:
        return None
    kept = _holdings(settings, run_id)
    if not await kept.find():
        return None
    said = kept.notes.get(_NOTE, {})
    if may_outlive(settings) and said.get("fingerprint") == fingerprint(settings):
        return kept
    await kept.close()
    return None


def _holdings(settings: SiteSettings, run_id: str) -> Holdings:
    return Holdings(settings.run_dir / "holder.sock", {**os.environ, RUN_MARK: run_id})


async def succeeded(settings: SiteSettings) -> None:
    """Note that all is up: end what nobody has taken over, and let others go on from here."""
    kept = holdings.of(settings.run_id)
    if kept is not None:
        await kept.abandon_rest()
        said = {"fingerprint": fingerprint(settings), "callback_port": settings.callback_port}
        kept.note(_NOTE, said)


@contextmanager
def listen_for_callbacks(settings: SiteSettings) -> Iterator[tuple[SiteSettings, socket.socket]]:
    """Listen on this machine for the RTMP server's questions; yield the settings that say where.

    One that lives on asks where it did before.
    """
    said = holdings.noted(settings.run_id, _NOTE) or {}
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(listen("127.0.0.1", said.get("callback_port", 0)))
        except ConflictError:  # another program's by now: the server is started anew
            listener = stack.enter_context(listen("127.0.0.1", 0))
        yield replace(settings, callback_port=listener.getsockname()[1]), listener
