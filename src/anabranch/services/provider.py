"""A provider's side of any module: have it on the nodes towards its users, as long as it is wanted.

::

    async with signalling() as signaller:
        path = Path(signaller, author, towards)
        nodes = await path.probe()
        await path.install(offer, properties={...}, node_id=nodes[-1].node_id)
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from anabranch.services.errors import ServicesError
from anabranch.services.node.sending import Signaller
from anabranch.services.signalling.compose import Author, compose, setup_headers
from anabranch.services.signalling.gist.objects import Address
from anabranch.services.signalling.message import ANY_MODULE, Method
from anabranch.services.signalling.response import Hop

_log = structlog.get_logger("anabranch.services")


class NotInstalledError(ServicesError):
    """No node on the way did what it was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A module as its provider has it ready.

    Attributes:
        name: with the version.
        url: where nodes fetch the archive.
        digest: SHA-256 of the archive.
        ttl: seconds for which a node keeps it, unless it is renewed.
        filter_dst, filter_proto, filter_ports: the packets that it gets; without a destination
            those to the address that signals; without a protocol none.
        properties: what each instance is told.
    """

    name: str
    url: str
    digest: bytes
    ttl: int = 120
    filter_dst: str | None = None
    filter_proto: str | None = None
    filter_ports: tuple[int, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


class Path:
    """The nodes between here and one user.

    Requests after the first go in the same signalling session.
    """

    def __init__(self, signaller: Signaller, author: Author, towards: Address) -> None:
        self.towards = towards
        self._signaller = signaller
        self._author = author
        self._session = signaller.session(towards)
        self._refusals: set[tuple[str, str]] = set()

    async def probe(
        self, what: str = "address", *, name: str = ANY_MODULE, node_id: str | None = None
    ) -> list[Hop]:
        """Return what the nodes say of themselves, the one nearest the user last.

        Args:
            what: names of what is asked for, with commas between.
            name: the module whose status is meant.
            node_id: ask this node only.

        Raises:
            NotInstalledError: there is no node on the way that knows us.
        """
        return await self._ask(Method.PROBE, name, {"probe": what, "node-id": node_id})

    async def install(
        self, offer: Offer, *, properties: Mapping[str, str], node_id: str | None = None
    ) -> list[Hop]:
        """Install or renew a module, and return the nodes that have it, in their order.

        Args:
            offer: the module.
            properties: beside those of the offer.
            node_id: on this node only; None: on all.

        Raises:
            NotInstalledError: no node has it now.
        """
        headers = setup_headers(
            offer.url,
            offer.digest,
            offer.ttl,
            filter_dst=offer.filter_dst,
            filter_proto=offer.filter_proto,
            filter_ports=offer.filter_ports,
            properties={**offer.properties, **properties},
            node_id=node_id,
        )
        hops = await self._ask(Method.SETUP, offer.name, headers)
        self._signaller.keep(self._session, 2.0 * offer.ttl)
        return hops

    async def remove(self, offer: Offer, *, node_id: str | None = None) -> None:
        """Remove a module; raises NotInstalledError if no node says that it did."""
        await self._ask(Method.REMOVE, offer.name, {"node-id": node_id})

    async def _ask(self, method: Method, name: str, headers: Mapping[str, str | None]) -> list[Hop]:
        data = compose(
            self._author, method, name, headers,
            wall_time=time.time(), nonce=secrets.token_bytes(16),
        )  # fmt: skip
        result = await self._signaller.ask(self._session, data)
        if result.response is None:
            raise NotInstalledError(f"towards {self.towards}: {result.reason}")
        self._log_refusals(method, result.response.hops)
        return _done(result.response.hops, self.towards)

    def _log_refusals(self, method: Method, hops: Sequence[Hop]) -> None:
        """Tell once of each node that did not do it, and why: others may have."""
        said = {(hop.node_id, f"{hop.status} {hop.reason}") for hop in hops if not hop.ok}
        for node_id, reason in said - self._refusals:
            _log.warning("node.refused", node=node_id, asked=method.value, reason=reason)
        self._refusals |= said


def _done(hops: Sequence[Hop], towards: Address) -> list[Hop]:
    done = [hop for hop in hops if hop.ok]
    if not done:
        said = "; ".join(f"{hop.node_id}: {hop.status} {hop.reason}" for hop in hops)
        raise NotInstalledError(f"towards {towards}: {said or 'no node answered'}")
    return done
