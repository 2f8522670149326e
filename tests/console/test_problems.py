"""Problems: every error of ours has its status, and its words are for a person."""

import pytest

from anabranch.console.problems import problem, status_of
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
