"""The document of the API says of each operation who may use it: from the rules."""

from typing import Any

from fastapi import FastAPI

from anabranch.console.people.rules import Rule

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "one line for a person"},
    },
    "required": ["type", "title", "status", "detail"],
}
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "the operator's token, an API token, or a share link's secret",
    },
    "session": {"type": "apiKey", "in": "cookie", "name": "anabranch"},
}


def describe(app: FastAPI, rules: dict[str, Rule]) -> None:
    """Have the document of ``app`` tell roles, ways to show who one is, and refusals."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _amended(plain(), rules)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _amended(document: dict[str, Any], rules: dict[str, Rule]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components.setdefault("securitySchemes", {}).update(_SCHEMES)
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    for path, item in document["paths"].items():
        for method, operation in item.items():
            rule = rules.get(f"{method.upper()} {path}")
            answers = operation["responses"]
            for status, answer in answers.items():
                if status[0] in "45":
                    answer["content"] = _content()
            if "requestBody" in operation:
                _add(answers, "400", "The body cannot be read, or ends before its time.")
                _add(answers, "413", "The body is too large.")
            _add(answers, "422", "Not allowed, or not formed as asked; the detail says why.")
            for status, what in (
                ("404", "No such thing."),
                ("409", "It is there already, or busy."),
                ("503", "Not available now."),
                ("507", "The store cannot be read or written."),
            ):
                _add(answers, status, what)
            if rule is None:
                continue
            if rule.least is not None:
                operation["security"] = [{"bearer": []}, {"session": []}]
                _add(answers, "401", "Nobody is signed in, or the token is wrong.")
                operation["x-role"] = rule.least.value
            elif "security" not in operation:
                # It may be used by nobody in particular; who one is may make a difference.
                operation["security"] = [{}, {"bearer": []}, {"session": []}]
            _add(answers, "403", "The role is too low, or a page of another site asked.")
    return document


def _add(answers: dict[str, Any], status: str, what: str) -> None:
    answers.setdefault(status, {"description": what})["content"] = _content()


def _content() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"application/problem+json": {"schema": schema}}
