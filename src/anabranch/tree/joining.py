"""How a machine becomes a node: a token once, then a certificate (docs/security.md)."""

import asyncio
from collections.abc import Iterable

from anabranch.core.errors import UnavailableError, UsageError
from anabranch.tree.certificates import (
    CertificateError,
    Credentials,
    check_root,
    stranger_context,
)
from anabranch.tree.events import Target
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity, wall_ms
from anabranch.tree.soleil.codec import encode
from anabranch.tree.soleil.messages import ROOT, Endpoint, Error, Hello, Message
from anabranch.tree.tokens import JoinToken
from anabranch.tree.transport.channel import Channel
from anabranch.tree.transport.dialler import Way, dial

_PATIENCE_S = 10.0


async def join(
    root: Iterable[Endpoint],
    token: JoinToken,
    credentials: Credentials,
    ways: Iterable[Way] = (),
) -> Identity:
    """Have the root certify this machine's key; return the name and role that it gave.

    The token goes only to a peer that has proved to be the root of the token's site: it first
    presents its authority, whose fingerprint the token has. To call it again does no harm.

    Raises:
        CertificateError: whoever answers is not that root.
        UsageError: the root refuses the token.
        UnavailableError: nobody answers, or not in time.
    """
    joining = _Joining(token, credentials)
    try:
        target = Target(None, tuple(root))
        context = stranger_context()
        await dial((target,), lambda _to, _who: joining.channel(), context, ways=ways)
        async with asyncio.timeout(_PATIENCE_S):
            return await joining.done
    except TimeoutError:
        raise UnavailableError("the root did not answer in time") from None
    finally:
        await joining.close()


class _Joining:
    """One attempt: asks for the authority, then shows the token."""

    def __init__(self, token: JoinToken, credentials: Credentials) -> None:
        self._token = token
        self._credentials = credentials
        self._request = credentials.request(token.name)
        self._channel: Channel | None = None
        self._asked = False
        self.done: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()

    def channel(self) -> Channel:
        self._channel = Channel(self._opened, self._received, self._closed)
        return self._channel

    async def close(self) -> None:
        if self._channel is not None and self._channel.opened:
            self._channel.close("done", at_once=True)
            await self._channel.closed
        self.done.cancel()

    def _opened(self, channel: Channel) -> None:
        self._say(channel, Hello(self._token.name, Role.LEAF))

    def _say(self, channel: Channel, hello: Hello) -> None:
        channel.send(encode(Message(hello, wall_ms(), to=ROOT, sender=self._token.name)))

    def _received(self, channel: Channel, message: Message) -> None:
        if self.done.done():
            return
        try:
            match message.body:
                case Hello(certificate=str(authority)) if not self._asked:
                    check_root(authority, self._token.authority, channel.certificate or b"")
                    self._asked = True
                    self._say(
                        channel,
                        Hello(
                            *(self._token.name, Role.LEAF),
                            token=self._token.secret,
                            request=self._request,
                        ),
                    )
                case Hello(certificate=str(chain)):
                    identity = self._credentials.store(chain, self._token.authority)
                    if identity.name != self._token.name:
                        raise CertificateError(f"the certificate is for {identity.name}")
                    self.done.set_result(identity)
                case Error(text=text):
                    self.done.set_exception(UsageError(f"the root refuses: {text}"))
                case _:
                    raise CertificateError("the peer does not answer as a root does")
        except CertificateError as error:
            self.done.set_exception(error)

    def _closed(self, _channel: Channel, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(UnavailableError(f"the root hung up: {reason}"))
