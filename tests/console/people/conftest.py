"""A site with people of every role, and channels of every visibility."""

from dataclasses import dataclass, field

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from tests.console.conftest import TOKEN, add_channel

from anabranch.channels.definitions import Visibility
from anabranch.console.api import make_app
from anabranch.console.people.doors import Doors
from anabranch.console.people.passwords import Hasher
from anabranch.console.people.people import People
from anabranch.console.people.roles import Role
from anabranch.site.site import Site

PASSWORD = "quite a long sentence"
ROLES = {"vera": Role.VIEWER, "paul": Role.PRODUCER, "olga": Role.OPERATOR, "anna": Role.ADMIN}
Headers = dict[str, str]


@dataclass
class Scene:
    """People and channels; ``tokens`` are API tokens by the account's name."""

    site: Site
    people: People
    app: FastAPI
    tokens: dict[str, str] = field(default_factory=dict)

    def client(self, *, tls: bool = False, address: str = "192.0.2.1") -> httpx.AsyncClient:
        """Return a browser of its own: cookies are kept."""
        transport = httpx.ASGITransport(
            self.app, raise_app_exceptions=False, client=(address, 1234)
        )
        return httpx.AsyncClient(
            transport=transport,
            base_url="https://site" if tls else "http://site",
            headers={"Sec-Fetch-Site": "same-origin"},
        )

    def bearer(self, name: str | None) -> Headers:
        """Return what shows that one is ``name``: an account, or the operator by the token."""
        if name is None:
            return {}
        secret = TOKEN if name == "operator token" else self.tokens[name]
        return {"Authorization": f"Bearer {secret}"}

    async def channel(
        self, name: str, visibility: Visibility = "public", owner: str | None = None
    ) -> None:
        """Define a channel that nobody started."""
        account = None if owner is None else self.people.account(owner).id
        definition = await self.site.lineup.definitions.add(
            name,
            title=f"Title of {name}",
            once=False,
            key=None,
            settle=lambda _others: "whip",
            visibility=visibility,
            owner=account,
        )
        add_channel(self.site, definition)


def quick_hasher() -> Hasher:
    return Hasher(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
async def people(site: Site) -> People:
    made = People(site.database, site.audience, TOKEN, hasher=quick_hasher())
    await made.load()
    return made


@pytest.fixture
async def scene(site: Site, people: People) -> Scene:
    """Accounts of every role, ``ines`` who owns the channels ``hidden`` and ``byname``."""
    made = Scene(site, people, make_app(site, token=TOKEN, people=people))
    for name, role in (*ROLES.items(), ("ines", Role.PRODUCER)):
        account = await people.add(name, role, PASSWORD)
        _, made.tokens[name] = await people.add_token(account, "test", role, None)
    await made.channel("hidden", "private", "ines")
    await made.channel("byname", "unlisted", "ines")
    await made.channel("shown", "public", "paul")
    return made


@pytest.fixture
def doors(site: Site, people: People) -> Doors:
    return Doors(site, people)
