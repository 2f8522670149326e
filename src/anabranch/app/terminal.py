"""What all commands share: where they print, and how they fail."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from anabranch.core.errors import AnabranchError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

P = ParamSpec("P")
R = TypeVar("R")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of ours into one line and exit code 1."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (AnabranchError, BaseExceptionGroup) as error:
            errors = _single(error)
            if not all(isinstance(each, AnabranchError) for each in errors):
                raise
            for each in errors:
                err.print(f"[red]anabranch:[/red] {escape(str(each))}", soft_wrap=True)
            raise typer.Exit(1) from None

    return wrapped


def when(epoch_s: float | None) -> str:
    """Return a time for people to read; empty: there is none."""
    return "" if epoch_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch_s))


def _single(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, whatever groups are in it; or the one that is no group."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [single for each in error.exceptions for single in _single(each)]
