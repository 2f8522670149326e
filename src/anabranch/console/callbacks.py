"""What the RTMP server asks, on a listener of its own that only this machine reaches."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from anabranch.core.errors import AnabranchError, ConflictError
from anabranch.media.rtmp import DONE_PATH, PUBLISH_PATH, parse_call
from anabranch.site.site import Site


def make_callbacks(site: Site) -> Starlette:
    """Make the application that answers the RTMP server's calls."""

    async def publish(request: Request) -> Response:
        try:
            channel = site.publishers.publish(parse_call(await request.body()))
        except ConflictError as error:
            return PlainTextResponse(str(error), 409)
        except AnabranchError as error:
            return PlainTextResponse(str(error), 403)
        # The redirect renames the stream from its key to its channel.
        return Response(status_code=302, headers={"Location": channel})

    async def done(request: Request) -> Response:
        try:
            site.publishers.done(parse_call(await request.body()))
        except AnabranchError as error:
            return PlainTextResponse(str(error), 400)
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route(PUBLISH_PATH, publish, methods=["POST"]),
            Route(DONE_PATH, done, methods=["POST"]),
        ]
    )
