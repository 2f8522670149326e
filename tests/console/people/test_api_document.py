"""The whole API from its own document, with every role: what it answers is what it says."""

import asyncio
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from tests.console.people.conftest import Scene
from tests.console.test_api import Served

schemathesis.serializer.alias("application/sdp", "text/plain")
ENDLESS = r"/(events|stream)$"
CHECKED = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
WHO = [None, "vera", "ines", "olga", "anna", "operator token"]
EXAMPLES = 3
"""Of each kind, for each operation and role."""


@pytest.mark.parametrize("who", WHO)
async def test_every_operation_answers_as_its_document_says(scene: Scene, who: str | None) -> None:
    served = Served(scene.app)
    try:
        counts = await asyncio.to_thread(drive, scene.app.openapi(), served.url, scene.bearer(who))
    finally:
        await served.stop()
    assert counts["operations"] > 60
    # Who is somebody gets somewhere, and who is nobody is told so.
    assert counts[401] > 50 if who is None else counts[401] <= 6 * EXAMPLES
    assert counts[403] == 0 if who in ("anna", "operator token") else counts[403] + counts[401] > 0
    assert counts[200] > 0


def drive(document: dict[str, Any], url: str, headers: dict[str, str]) -> dict[Any, int]:
    """Ask for everything in a document, as well formed and as badly formed; count the answers."""
    schema = schemathesis.openapi.from_dict(document).exclude(path_regex=ENDLESS)
    schema.config.base_url = url
    checks = [CHECKS.get_one(name) for name in CHECKED]
    failures: list[str] = []
    counts: dict[Any, int] = {"operations": 0, 200: 0, 401: 0, 403: 0}
    for found in schema.get_all_operations():
        operation = found.ok()
        counts["operations"] += 1
        named = {"name": "hidden"} if operation.path.startswith("/api/channels/{name}") else None
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.given(case=operation.as_strategy(mode, path_parameters=named))
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case) -> None:
                answer = case.call(headers=headers)
                counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
                assert answer.status_code != 500, case.as_curl_command()
                case.validate_response(answer, checks=checks)

            try:
                ask()
            except hypothesis.errors.Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE  # nothing about it can be formed badly
            except Exception as error:  # all that is wrong is told at once
                failures.append(f"{operation.label}: {error}")
    assert not failures, "\n".join(failures)
    return counts
