"""No request body is read without a limit."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anabranch.console.problems import problem


class _TooLargeError(Exception):
    """The body went over the limit while it was read."""


class LimitBody:
    """Refuses bodies of more than ``limit`` bytes with 413, whether announced or streamed."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = problem(413, f"a request has at most {self._limit} bytes")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await answer(scope, receive, send)
            return
        read = 0
        answered = False

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal answered
            if not answered and read > self._limit:
                raise _TooLargeError  # whatever the application made of it
            answered = True
            await send(message)

        try:
            await self._app(scope, limited, watched)
        except _TooLargeError:
            if not answered:
                await answer(scope, receive, send)
