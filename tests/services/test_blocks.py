"""Smaller building blocks: the notifier, the client for one body, figures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from tests.services.origin import plain, running_origin

from anabranch.services.blocks import metrics
from anabranch.services.blocks.notifier import Notifier, call
from anabranch.services.blocks.web_client import WebClientError, checked_origin, fetch


class Quiet(SimpleXMLRPCRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def xml_rpc_server(told: list[dict]) -> Iterator[str]:
    with SimpleXMLRPCServer(("127.0.0.1", 0), Quiet) as server:

        def event(values: dict) -> bool:
            if values["event"] == "refuse":
                raise ValueError("refused")
            told.append(values)
            return True

        server.register_function(event, "cdn.event")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/RPC2"
        finally:
            server.shutdown()
            thread.join()


def test_events_are_told_in_order() -> None:
    told: list[dict] = []
    with xml_rpc_server(told) as url:
        notifier = Notifier(url, "cdn.event")
        notifier.start()
        for number in ("1", "refuse", "2"):
            assert notifier.tell({"event": number})
        notifier.stop(5)
    assert [each["event"] for each in told] == ["1", "2"]
    assert (notifier.told, notifier.lost) == (2, 1)


def test_what_is_too_much_is_lost_and_counted() -> None:
    notifier = Notifier("http://127.0.0.1:9/", "x")
    assert sum(notifier.tell({}) for _ in range(100)) == 64
    assert notifier.lost == 36
    notifier.stop()


async def test_a_server_that_speaks_something_else() -> None:
    import asyncio

    async with running_origin() as origin:
        origin.answers["/"] = plain(b"<html>")
        for body in (b"<html>", b"", b"\xff", b"x" * 20_000):
            origin.answers["/"] = plain(body)
            with pytest.raises(WebClientError):
                await asyncio.to_thread(call, f"{origin.url}/", "x", {})
        origin.answers["/a"] = plain(b"12345")
        assert await asyncio.to_thread(fetch, f"{origin.url}/a", 5) == b"12345"
        for url, most in ((f"{origin.url}/a", 4), (f"{origin.url}/b", 5), ("http://[", 5),
                          ("http://127.0.0.1:9/", 5)):  # fmt: skip
            with pytest.raises(WebClientError):
                await asyncio.to_thread(fetch, url, most)


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://192.0.2.1:8080/", "http://[::1]:80"])
def test_origins(url: str) -> None:
    assert checked_origin(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "http://", "http://example.org", "https://192.0.2.1", "http://192.0.2.1/a", "ftp://1.2.3.4",
     "http://192.0.2.1:99999", "http://u:p@192.0.2.1", "http://0.0.0.0", "http://224.0.0.1",
     "http://192.0.2.1?x", "file:///etc/passwd", "http://[::1"],
)  # fmt: skip
def test_what_is_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"http://ADDRESS|nothing to fetch"):
        checked_origin(url)


def test_figures_have_short_names() -> None:
    registry = CollectorRegistry()
    Counter("hits", "x", ["kind"], registry=registry).labels("film").inc(3)
    Gauge("load", "x", registry=registry).set(0.12345)
    Histogram("wait", "x", registry=registry).observe(2)
    assert metrics.figures(registry) == {
        "hits.film": 3, "load": 0.123, "wait_count": 1, "wait_sum": 2,
    }  # fmt: skip
    assert len(metrics.figures(registry, 2)) == 2
    kind, text = metrics.page(registry)
    assert b'hits_total{kind="film"} 3.0' in text
    assert kind.startswith("text/plain")
