"""The way to a running director: its HTTP API, with the operator's token or an API token."""

import fcntl
import os
from typing import Any

import httpx

from anabranch.app.config import ROOT_RUN, Config
from anabranch.app.tls import client_context
from anabranch.core.errors import AnabranchError, UnavailableError, UsageError

ROOT_HINT = "the site runs as root: use sudo"


class RefusedError(AnabranchError):
    """The director refused a request; the message is its own."""


class Client:
    """Asks the director of the site that the configuration names.

    ``ANABRANCH_URL`` and ``ANABRANCH_TOKEN`` name another one.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._url = os.environ.get("ANABRANCH_URL", config.local_url).rstrip("/")

    def request(
        self, method: str, path: str, *, json: object = None, timeout_s: float = 30.0
    ) -> Any:
        """Send one request and return the JSON of the answer.

        Raises:
            UnavailableError: no director answers.
            RefusedError: it refused; the message is its own.
            UsageError: the request cannot be sent, or the site is root's and the user is not.
        """
        try:
            with httpx.Client(
                base_url=self._url,
                headers={"Authorization": f"Bearer {self._token()}"},
                timeout=timeout_s,
                verify=self._verify(),
                trust_env=False,
            ) as client:
                answer = client.request(method, path, json=json)
        except (UnicodeError, httpx.InvalidURL) as error:
            raise UsageError(f"this cannot be sent to {self._url}: {error}") from error
        except httpx.TransportError as error:
            raise UnavailableError(
                f"no director answers at {self._url} ({error}): is `anabranch up` running?"
            ) from error
        if answer.status_code == 401 and self._is_local() and runs_as_root(self._config):
            raise UsageError(ROOT_HINT)
        if not answer.is_success:
            try:
                detail = answer.json()["detail"]
            except (ValueError, KeyError, TypeError):
                detail = f"the director answered {answer.status_code}"
            raise RefusedError(str(detail))
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise UnavailableError(f"what answers at {self._url} is no director") from None

    def _token(self) -> str:
        given = os.environ.get("ANABRANCH_TOKEN")
        if given:
            return given
        path = self._config.token_file
        try:
            return path.read_text("ascii").strip()
        except FileNotFoundError:
            if self._is_local() and runs_as_root(self._config):
                raise UsageError(ROOT_HINT) from None
            raise UnavailableError(
                f"there is no operator's token at {path}: has this site ever been up?"
            ) from None
        except PermissionError:
            raise UsageError(f"{path} may not be read: run this as the site's owner") from None
        except (OSError, UnicodeError) as error:
            raise UsageError(f"{path} is no operator's token: {error}") from None

    def _is_local(self) -> bool:
        return not {"ANABRANCH_URL", "ANABRANCH_TOKEN"} & os.environ.keys()

    def _verify(self) -> Any:
        if self._url.startswith("https") and "ANABRANCH_URL" not in os.environ:
            return client_context(self._config)
        return True


def runs_as_root(config: Config) -> bool:
    """Return whether root runs the site and the user is not root, who would not find it."""
    if os.geteuid() == 0:
        return False
    try:
        with (ROOT_RUN / f"{config.site}.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except OSError:
        pass
    return False
