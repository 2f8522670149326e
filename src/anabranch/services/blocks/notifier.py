"""Tells an XML-RPC server what happens in a module, without keeping packets waiting.

self._notifier = Notifier("http://192.0.2.1:8099/events", "activecdn.event")
self._notifier.tell({"event": "full"})
"""

import logging
import queue
import threading
import xmlrpc.client
from collections.abc import Mapping
from contextlib import suppress
from xml.parsers.expat import ExpatError

import httpx

from anabranch.services.blocks.web_client import WebClientError

_MOST_WAITING = 64
_PATIENCE_S = 5.0
_MOST_ANSWER = 16 * 1024
_log = logging.getLogger(__name__)


class Notifier:
    """Calls one method of one server, in order, from a thread of its own.

    Args:
        url: with an address: a sandbox has no resolver.
        method: called with one structure.

    Attributes:
        told, lost: calls that were answered; that failed, or for which there was no room.
    """

    def __init__(self, url: str, method: str) -> None:
        self._url = url
        self._method = method
        self._waiting: queue.Queue[dict[str, str] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self.told = 0
        self.lost = 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def stop(self, patience: float = 1.0) -> None:
        """End; what waits is told within ``patience`` seconds, or lost."""
        if self._thread is None:
            return
        with suppress(queue.Full):
            self._waiting.put(None, timeout=patience)
        self._thread.join(patience)
        self._thread = None

    def tell(self, values: Mapping[str, str]) -> bool:
        """Have the server told; False: too much waits already, and this is lost."""
        try:
            self._waiting.put_nowait(dict(values))
        except queue.Full:
            self.lost += 1
            return False
        return True

    def _run(self) -> None:
        while (values := self._waiting.get()) is not None:
            try:
                call(self._url, self._method, values)
                self.told += 1
            except WebClientError as error:
                self.lost += 1
                _log.warning("%s", error)


def call(url: str, method: str, values: Mapping[str, str]) -> None:
    """Call a method of an XML-RPC server once.

    Raises:
        WebClientError: it cannot be reached, refuses, or answers with a fault.
    """
    body = xmlrpc.client.dumps((dict(values),), method).encode()
    answer = bytearray()
    try:
        with httpx.stream(
            "POST", url, content=body, headers={"content-type": "text/xml"},
            timeout=_PATIENCE_S, trust_env=False,
        ) as response:  # fmt: skip
            for part in response.iter_raw():
                answer += part
                if len(answer) > _MOST_ANSWER:
                    raise WebClientError(f"{url}: more than {_MOST_ANSWER} bytes of answer")
        if response.status_code != httpx.codes.OK:
            raise WebClientError(f"{url}: {response.status_code}")
        xmlrpc.client.loads(bytes(answer).decode())
    except xmlrpc.client.Fault as fault:
        raise WebClientError(f"{url}: {method}: {fault.faultString[:200]}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WebClientError(f"{url}: {error or type(error).__name__}") from error
    except (ValueError, LookupError, TypeError, ExpatError, xmlrpc.client.Error) as error:
        raise WebClientError(f"{url}: no XML-RPC: {error}") from error
