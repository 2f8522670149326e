"""Problems: every error of ours has its status, and its words are for a person."""

import pytest
from fastapi import FastAPI, Request

from anabranch.console.problems import install, problem, status_of
from anabranch.core.errors import (
    AnabranchError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from anabranch.fabric.errors import FabricError
from anabranch.media.errors import SourceError
from anabranch.media.janus_client import JanusError
from anabranch.media.leaf import LeafUnavailableError, OfferError
from anabranch.store.database import StoreError
from anabranch.tree.model import TreeError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreError("x"), 507),
        (NotFoundError("x"), 404),
        (ConflictError("x"), 409),
        (UsageError("x"), 422),
        (OfferError("x"), 422),
        (SourceError("x"), 422),
        (TreeError("x"), 422),
        (UnavailableError("x"), 503),
        (LeafUnavailableError("x"), 503),
        (JanusError(1, "x"), 500),
        (FabricError("x"), 500),
        (AnabranchError("x"), 500),
    ],
)
def test_every_error_has_its_status(error: AnabranchError, status: int) -> None:
    assert status_of(error) == status


def test_a_problem_is_what_rfc_9457_says() -> None:
    answer = problem(404, "there is no channel named 'x'", headers={"X-More": "1"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-more"] == "1"
    assert bytes(answer.body) == (
        b'{"type":"about:blank","title":"Not found","status":404,'
        b'"detail":"there is no channel named \'x\'"}'
    )


async def test_a_client_that_breaks_off_is_nothing_to_tell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = FastAPI()
    install(app)

    @app.post("/")
    async def read(request: Request) -> None:
        await request.body()

    async def breaks_off() -> dict[str, str]:
        return {"type": "http.disconnect"}

    answered: list[int] = []

    async def send(message: dict[str, int]) -> None:
        answered.append(message.get("status", 0))

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    await app(scope, breaks_off, send)  # type: ignore[arg-type]
    assert answered[0] == 400
    assert "request.failed" not in capsys.readouterr().out
