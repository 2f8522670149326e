"""Intents as JSON: between a director and its controllers, and in an operator's file."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from anabranch.core.errors import AnabranchError
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import Intents

_ADAPTER = TypeAdapter(Intents)


def dumps(intents: Intents) -> bytes:
    """Return intents as JSON in UTF-8."""
    return _ADAPTER.dump_json(intents, exclude_none=True, exclude={"names"})


def loads(data: bytes) -> Intents:
    """Return the intents that ``data`` is; the inverse of :func:`dumps`.

    Raises:
        MisuseError: it is none; the message names the place.
    """
    try:
        return _ADAPTER.validate_json(data)
    except (ValidationError, AnabranchError) as error:
        raise _misuse(error) from None


def from_plain(data: Any) -> Intents:
    """Return intents from what YAML or JSON gave. Raises as :func:`loads`."""
    try:
        return _ADAPTER.validate_python(data)
    except (ValidationError, AnabranchError) as error:
        raise _misuse(error) from None


def _misuse(error: ValidationError | AnabranchError) -> MisuseError:
    if isinstance(error, AnabranchError):
        return MisuseError(f"the intents are wrong: {error}")
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"])) or "the whole"
    return MisuseError(f"the intents are wrong at {where[:200]}: {fault['msg'][:200]}")
