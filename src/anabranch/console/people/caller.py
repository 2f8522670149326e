"""Who sends a request, and what that one may see and manage. Pure."""

from dataclasses import dataclass
from typing import Literal

from anabranch.channels.audience import Audience, Share
from anabranch.channels.definitions import Definition
from anabranch.console.people.records import Account
from anabranch.console.people.roles import Role

By = Literal["session", "token", "operator_token"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as of now.

    Attributes:
        role: what it may do; None: nobody is signed in.
        account: whose it is; None with a role: the operator's token.
        by: what showed it.
        holder: names what showed it, so that a seat can be asked later whether it still counts;
            no secret. Empty: nothing was shown.
        share: the link that came with it.
        expires: when the session ends, seconds since the epoch.
        cross_site: it would have been somebody, but for a page of another site.
    """

    role: Role | None = None
    account: Account | None = None
    by: By | None = None
    holder: str = ""
    share: Share | None = None
    expires: float | None = None
    cross_site: bool = False

    @property
    def session(self) -> str:
        """The session's identifier; empty: it is none."""
        return self._shown("session")

    @property
    def token(self) -> str:
        """The API token's identifier; empty: it is none."""
        return self._shown("token")

    def _shown(self, kind: str) -> str:
        parts = (part.partition(":") for part in self.holder.split("+"))
        return next((name for found, _, name in parts if found == kind), "")

    def reaches(self, least: Role) -> bool:
        return self.role is not None and self.role.reaches(least)

    def may_manage(self, channel: Definition) -> bool:
        """Say whether it is one's own channel, or one operates them all."""
        if self.reaches(Role.OPERATOR):
            return True
        return (
            self.reaches(Role.PRODUCER)
            and self.account is not None
            and channel.owner == self.account.id
        )

    def is_listed(self, channel: Definition, audience: Audience) -> bool:
        """Say whether a channel is in one's list."""
        if channel.visibility == "public" or self.reaches(Role.OPERATOR):
            return True
        if self.account is None:
            return False
        # What one owns one sees, whatever has become of one's role.
        return channel.owner == self.account.id or audience.has(channel.name, self.account.id)

    def may_see(self, channel: Definition, audience: Audience) -> bool:
        """Say whether there is a channel as far as one is concerned."""
        if channel.visibility == "unlisted" or self.is_listed(channel, audience):
            return True
        return self.share is not None and self.share.channel == channel.name


NOBODY = Caller()
