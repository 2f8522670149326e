"""Whom a channel is for: accounts that are let in, and share links. For who manages it."""

from fastapi import APIRouter

from anabranch.channels.audience import Share
from anabranch.console.people import models
from anabranch.console.people.doors import Doors
from anabranch.console.people.people import People
from anabranch.console.problems import Answers
from anabranch.core.events import Event
from anabranch.site.site import Site


def make_router(site: Site, people: People, doors: Doors) -> APIRouter:
    """Return the routes ``viewers`` and ``shares`` of a channel."""
    router = APIRouter(prefix="/api/channels/{name}", tags=["channels"])
    absent: Answers = {404: {"description": "No such channel, account or link."}}
    too_many: Answers = {409: {"description": "There are as many as may be."}}
    audience = site.audience

    async def changed(name: str) -> None:
        await doors.look()
        site.events.publish(Event("channel.changed", name))  # some have it in their list now

    @router.get("/viewers", responses=absent)
    async def viewers(name: str) -> models.ViewersOut:
        """List the accounts that were let in."""
        site.channel(name)
        named = (people.name_of(account) for account in audience.accounts(name))
        return models.ViewersOut(accounts=sorted(each for each in named if each is not None))

    @router.put("/viewers/{account}", status_code=204, responses={**absent, **too_many})
    async def let_in(name: str, account: str) -> None:
        """Let an account watch the channel while it is private."""
        site.channel(name)
        await audience.let_in(name, people.account(account).id)
        await changed(name)

    @router.delete("/viewers/{account}", status_code=204, responses=absent)
    async def put_out(name: str, account: str) -> None:
        """Take that back; its seats on the channel end."""
        site.channel(name)
        await audience.put_out(name, people.account(account).id)
        await changed(name)

    @router.get("/shares", responses=absent)
    async def shares(name: str) -> models.SharesOut:
        """List the share links that are good now."""
        site.channel(name)
        return models.SharesOut(shares=[share_out(each) for each in audience.shares(name)])

    @router.post("/shares", status_code=201, responses={**absent, **too_many})
    async def share(name: str, wanted: models.ShareIn) -> models.NewShareOut:
        """Draw a share link: whoever has it watches the channel, until it expires or is revoked."""
        site.channel(name)
        made, secret = await audience.share(
            name, name_of_link=wanted.name, lifetime_s=wanted.expires_in_s
        )
        url = f"{site.settings.console}/watch/{name}#share={secret}"
        return models.NewShareOut(**share_out(made).model_dump(), secret=secret, url=url)

    @router.delete("/shares/{share}", status_code=204, responses=absent)
    async def unshare(name: str, share: str) -> None:
        """Revoke a share link; the seats that came by it end."""
        await audience.unshare(name, share)
        await doors.look()

    return router


def share_out(share: Share) -> models.ShareOut:
    """Return a link without its secret, which is not known any more."""
    return models.ShareOut(
        id=share.id,
        name=share.name,
        created=share.created,
        expires=share.expires,
        used=share.used,
    )
