"""The service controller: judges requests at once, and acts on those that it lets in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import Protocol

from anabranch.services.controller.modules import Module, Modules
from anabranch.services.controller.routability import is_public_enough
from anabranch.services.controller.runtime import ModuleRequest, Runtime, RuntimeRefusedError
from anabranch.services.controller.users import User
from anabranch.services.errors import ServicesError, SignatureError
from anabranch.services.signalling.gist.objects import Address
from anabranch.services.signalling.message import ANY_MODULE, Method
from anabranch.services.signalling.relay import Admission, Way
from anabranch.services.signalling.replay import ReplayError, ReplayWindow, TooManyRequestsError
from anabranch.services.signalling.request import Probed, Request
from anabranch.services.signalling.response import Hop, Status
from anabranch.services.signalling.values import Dependency, Filter


class NoArchiveError(ServicesError):
    """An archive cannot be had from where the message says, or it is another one."""


class NotProvedError(ServicesError):
    """The reverse routability check failed."""


class Archives(Protocol):
    """Where archives come from."""

    async def get(self, url: str, digest: bytes) -> Path:
        """Return the file of that SHA-256, fetched from ``url`` unless it is here.

        Raises:
            NoArchiveError: it cannot be had.
        """
        ...


class World(Protocol):
    """What the controller asks of other machines."""

    async def prove(self, address: Address, password: str, signature: bytes, node_id: str) -> None:
        """Make the reverse routability check.

        Raises:
            NotProvedError: the address does not answer as it must.
        """
        ...

    def notify(self, url: str, values: Mapping[str, str]) -> None:
        """Call an XML-RPC URL, later and without waiting."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of acting on a request.

    Attributes:
        hop: the answer.
        ttl: for that many seconds a module is here; 0: none came.
        ended: the session that had kept up a module which was removed.
    """

    hop: Hop
    ttl: float = 0.0
    ended: bytes | None = None


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Controller:
    """Decides what may be installed on this node, and has it done."""

    def __init__(
        self,
        node_id: str,
        users: Mapping[str, User],
        runtime: Runtime,
        archives: Archives,
        world: World,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        address_towards: Callable[[Address], Address],
    ) -> None:
        self._node_id = node_id
        self._address_towards = address_towards
        self._users = users
        self._runtime = runtime
        self._archives = archives
        self._world = world
        self._clock = clock
        self._wall_clock = wall_clock
        self._replay = ReplayWindow(wall_clock())
        self._busy: set[tuple[str, str]] = set()
        self.modules = Modules()

    @property
    def node_id(self) -> str:
        return self._node_id

    def set_users(self, users: Mapping[str, User]) -> None:
        """Replace the users; modules of those who are gone stay until they expire."""
        self._users = users

    def admit(self, request: Request, session: bytes) -> Admission:
        """Judge a request at first sight; see :class:`~..signalling.relay.Gatekeeper`."""
        if request.node_id not in (None, self._node_id):
            return Admission(act=False, hop=None, way=Way.ON)
        user = self._users.get(request.user)
        if user is None:
            # known to a node of another operator, perhaps
            hop = self._hop(Status.FORBIDDEN, f"user {request.user} is not known here")
            return Admission(act=False, hop=hop, way=Way.ON)
        try:
            request.verify(user.public_key)
            if not self._renews(request, session):
                self._replay.admit(request, self._wall_clock())
        except SignatureError as error:
            return self._turned_away(Status.BAD_SIGNATURE, error)
        except ReplayError as error:
            return self._turned_away(Status.REPLAYED, error)
        except TooManyRequestsError as error:
            return self._turned_away(Status.TOO_MANY, error)
        way = Way.ON if request.node_id is None else Way.BACK
        return Admission(act=True, hop=None, way=way)

    async def act(self, request: Request, session: bytes, origin: Address) -> Outcome:
        """Do what an admitted request asks for; whatever goes wrong is the answer."""
        user = self._users.get(request.user)
        place = (request.user, request.name)
        if user is None:
            return Outcome(self._hop(Status.FORBIDDEN, f"user {request.user} is not known here"))
        if request.method is Method.PROBE:
            return Outcome(await self._probe(user, request, origin))
        if place in self._busy:
            return Outcome(self._hop(Status.BUSY, "another request for this module is under way"))
        self._busy.add(place)
        try:
            if request.method is Method.SETUP:
                return await self._set_up(user, request, session, origin)
            return await self._remove(user, request)
        except _RefusedError as error:
            return Outcome(self._hop(error.status, str(error)))
        except RuntimeRefusedError as error:
            return Outcome(self._hop(error.status, str(error)))
        except NoArchiveError as error:
            return Outcome(self._hop(Status.NO_ARCHIVE, str(error)))
        except NotProvedError as error:
            return Outcome(self._hop(Status.FORBIDDEN, str(error)))
        finally:
            self._busy.discard(place)

    async def expire(self, now: float) -> list[Module]:
        """Remove the modules whose time is over, and return them."""
        gone = []
        for module in self.modules.expired(now):
            place = (module.user, module.name)
            if place in self._busy:
                continue  # it is being renewed, or removed
            self._busy.add(place)
            try:
                await self._take_down(module)
            except RuntimeRefusedError:
                continue  # it still runs, and is tried again
            finally:
                self._busy.discard(place)
            gone.append(module)
        return gone

    async def dismiss(self, user: str, name: str) -> Module | None:
        """Remove a module, since the operator wants it gone; None: it is not here.

        Raises:
            RuntimeRefusedError: it cannot be removed, or is being changed just now.
        """
        module, place = self.modules.get(user, name), (user, name)
        if module is None:
            return None
        if place in self._busy:
            raise RuntimeRefusedError(f"{name} is being changed just now", Status.BUSY)
        self._busy.add(place)
        try:
            await self._take_down(module)
        finally:
            self._busy.discard(place)
        return module

    async def _take_down(self, module: Module) -> None:
        await self._runtime.remove(module.owner, module.name)
        self.modules.pop(module.user, module.name)

    # SETUP

    async def _set_up(
        self, user: User, request: Request, session: bytes, origin: Address
    ) -> Outcome:
        lacking = [need for need in request.dependencies if not self._has(user, need)]
        if lacking:
            names = ", ".join(map(str, lacking))
            raise _RefusedError(Status.FAILED_DEPENDENCY, f"{names} not here")
        wanted = _completed(request.filter, origin)
        ttl = min(request.ttl, user.max_ttl)
        present = self.modules.get(user.name, request.name)
        if present is not None and present.same(request.digest, wanted, request.properties):
            present.expires = self._clock() + ttl
            present.setup, present.session = sha256(request.encoded).digest(), session
            return self._installed("renewed", request, ttl, {})
        if present is None and len(self.modules.of(user.name)) >= user.max_modules:
            raise _RefusedError(Status.TOO_MANY, f"at most {user.max_modules} modules")
        if wanted is not None:
            await self._authorise(user, wanted, request)
        archive = await self._archives.get(request.url, request.digest)
        module = ModuleRequest(
            request.name, archive, request.digest, wanted, ttl, request.properties
        )
        details = await self._runtime.install(user, module)
        self.modules.put(
            Module(
                user,
                request.name,
                request.digest,
                wanted,
                request.properties,
                session,
                sha256(request.encoded).digest(),
                self._clock() + ttl,
            )
        )
        return self._installed(
            "installed" if present is None else "replaced", request, ttl, details
        )

    def _installed(
        self, what: str, request: Request, ttl: int, details: Mapping[str, str]
    ) -> Outcome:
        self._notify(request, what)
        told = {"ttl": str(ttl), **{key: value for key, value in details.items() if value}}
        return Outcome(self._hop(Status.OK, what, told), ttl)

    async def _authorise(self, user: User, wanted: Filter, request: Request) -> None:
        destination = wanted.destination
        assert destination is not None
        if user.may_filter(destination):
            return
        where = f"user {user.name} may not claim packets to {destination}"
        if request.password is None or not user.may_prove:
            raise _RefusedError(Status.FORBIDDEN, where)
        address = destination.network_address
        if destination.num_addresses != 1 or not is_public_enough(address):
            raise _RefusedError(Status.FORBIDDEN, f"{where}: only single addresses can be proved")
        await self._world.prove(address, request.password, request.signature, self._node_id)

    def _has(self, user: User, need: Dependency) -> bool:
        there = dict(self._runtime.building_blocks)
        for module in self.modules.of(user.name):
            name, _, version = module.name.rpartition("_")
            there[name or module.name] = version
        if need.name not in there:
            return False
        return need.version is None or _version(there[need.name]) >= _version(need.version)

    # REMOVE and PROBE

    async def _remove(self, user: User, request: Request) -> Outcome:
        module = self.modules.get(user.name, request.name)
        if module is None:
            raise _RefusedError(Status.NOT_FOUND, f"{request.name} is not installed")
        await self._take_down(module)
        self._notify(request, "removed")
        return Outcome(self._hop(Status.OK, "removed"), ended=module.session)

    async def _probe(self, user: User, request: Request, origin: Address) -> Hop:
        details: dict[str, str] = {}
        for kind in request.probed:
            match kind:
                case Probed.NODE_ID:
                    details["id"] = self._node_id
                case Probed.ADDRESS:
                    details["address"] = str(self._address_towards(origin))
                case Probed.CAPABILITIES:
                    details |= self._runtime.capabilities
                case Probed.BUILDING_BLOCKS:
                    blocks = self._runtime.building_blocks.items()
                    details["building-blocks"] = " ".join(f"{name}_{v}" for name, v in blocks)
                case Probed.STATUS:
                    details |= await self._status(user, request.name)
                case Probed.POLICY:
                    details |= _policy(user)
        return self._hop(Status.OK, "probed", details)

    async def _status(self, user: User, name: str) -> dict[str, str]:
        if name == ANY_MODULE:
            names = " ".join(module.name for module in self.modules.of(user.name))
            return {"modules": names or "none"}
        module = self.modules.get(user.name, name)
        if module is None:
            return {"state": "absent"}
        left = max(0.0, module.expires - self._clock())
        return {"expires-in": f"{left:.0f}", **await self._runtime.status(user, name)}

    # What they share

    def _renews(self, request: Request, session: bytes) -> bool:
        """Return whether it is the very SETUP that keeps a module here, in the same session."""
        module = self.modules.get(request.user, request.name)
        return (
            request.method is Method.SETUP
            and module is not None
            and module.session == session
            and module.setup == sha256(request.encoded).digest()
        )

    def _notify(self, request: Request, what: str) -> None:
        if request.notification is not None:
            values = {"node-id": self._node_id, "user": request.user, "module": request.name}
            self._world.notify(request.notification, {**values, "event": what})

    def _turned_away(self, status: int, error: Exception) -> Admission:
        return Admission(act=False, hop=self._hop(status, str(error)), way=Way.BACK)

    def _hop(self, status: int, reason: str, details: Mapping[str, str] | None = None) -> Hop:
        return Hop(self._node_id, status, reason, details or {})


def _completed(wanted: Filter | None, origin: Address) -> Filter | None:
    """Fill in the signalling source for a filter that protects nobody in particular."""
    if wanted is None or wanted.destination is not None:
        return wanted
    return replace(wanted, destination=ip_network(origin))


def _policy(user: User) -> dict[str, str]:
    prefixes = " ".join(map(str, user.filter_prefixes))
    ports = " ".join(
        str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
        for ports in user.listen_ports
    )
    return {
        "filter-prefixes": prefixes or "none",
        "listen-ports": ports or "none",
        "max-modules": str(user.max_modules),
        "max-ttl": str(user.max_ttl),
        "routability-check": "yes" if user.may_prove else "no",
        "transcodings": str(user.transcodings),
    }


def _version(text: str) -> list[int]:
    """Return a version's parts as numbers; what is none comes before 0."""
    return [int(part) if part.isdigit() else -1 for part in text.replace("-", ".").split(".")]
