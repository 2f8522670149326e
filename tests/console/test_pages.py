"""The pages and the metrics."""

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.console.conftest import MemoryLeaf

from anabranch.channels.seats import Seat
from anabranch.console import pages
from anabranch.media.leaf import Feed
from anabranch.site.site import Site


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Built pages, whether or not this checkout has them."""
    watching = ("index", "watch", "publish", "login", "account")
    working = ("studio", "channel", "people", "services")
    for name in (*(f"{page}.html" for page in watching + working), "assets/base-1234.js"):
        path = tmp_path / "static" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(pages, "STATIC", tmp_path / "static")
    return tmp_path / "static"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "index.html"),
        ("/watch/news", "watch.html"),
        ("/watch/x", "watch.html"),
        ("/publish?channel=news", "publish.html"),
        ("/login?next=/", "login.html"),
        ("/account", "account.html"),
        ("/people", "people.html"),
        ("/services", "services.html"),
        ("/studio", "studio.html"),
        ("/studio/news", "channel.html"),
        ("/studio/none", "channel.html"),
    ],
)
@pytest.mark.usefixtures("built")
async def test_a_page_runs_nothing_but_its_own_scripts(
    client: httpx.AsyncClient, path: str, text: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.text) == (200, text)
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["script-src"] == policy["default-src"] == "'self'"
    assert policy["base-uri"] == policy["object-src"] == "'none'"
    # A channel may be shown within other people's pages; what asks for secrets may not.
    framed = path == "/" or path.startswith("/watch/")
    assert policy.get("frame-ancestors") == (None if framed else "'none'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_script_within_a_page_runs_by_its_hash_and_nothing_else(
    built: Path, client: httpx.AsyncClient
) -> None:
    page = built / "watch.html"
    page.write_text("<script>one()</script><script type=module src=/assets/a.js></script>")
    hashed = "'sha256-HR7iaask9daLMRRskMI++QeJtjWDOjyPA6lGzYGzKW4='"
    answer = await client.get("/watch/news")
    assert f"script-src 'self' {hashed};" in answer.headers["content-security-policy"]
    page.write_text("<script>\nothers()</script>")  # built anew while the director runs
    answer = await client.get("/watch/news")
    assert "others()" in answer.text
    assert hashed not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].count("'sha256-") == 1


@pytest.mark.parametrize("path", ["/", "/watch/news"])
@pytest.mark.usefixtures("built")
async def test_a_page_can_be_asked_for_its_head_alone(client: httpx.AsyncClient, path: str) -> None:
    head, answer = await client.head(path), await client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))
    assert head.headers["content-security-policy"] == answer.headers["content-security-policy"]


async def test_browsers_find_the_icon_where_they_look_unasked(
    built: Path, client: httpx.AsyncClient
) -> None:
    assert (await client.get("/favicon.ico")).status_code == 204
    (built / "assets" / "favicon-5678.svg").write_text("<svg/>")
    answer = await client.get("/favicon.ico", follow_redirects=True)
    assert (answer.status_code, answer.text) == (200, "<svg/>")
    assert answer.headers["content-type"].startswith("image/svg+xml")


async def test_built_files_are_kept_and_nothing_else_is_served(
    built: Path, client: httpx.AsyncClient
) -> None:
    asset = await client.get("/assets/base-1234.js")
    assert (asset.status_code, asset.text) == (200, "assets/base-1234.js")
    assert "immutable" in asset.headers["cache-control"]
    for path in (
        "/assets/none.js",
        "/assets/",
        "/assets/..%2Findex.html",
        "/assets/%2e%2e/%2e%2e/store.db",
        "/favicon.svg",
    ):
        answer = await client.get(path)
        assert answer.status_code == 404, path
        assert "cache-control" not in answer.headers


async def test_pages_that_are_not_built_say_how(built: Path, client: httpx.AsyncClient) -> None:
    (built / "index.html").unlink()
    answer = await client.get("/")
    assert answer.status_code == 503
    assert "./scripts/build" in answer.text


async def test_metrics_are_prometheus_text(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf
) -> None:
    site.seats.add(Seat("news", "high", "leaf1", "1"))
    leaf.viewings["1"] = Feed("news", "high")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    figures = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    assert figures["anabranch_channel_viewers", "news"] == 1
    assert figures["anabranch_channel_live", "news"] == 0
    assert figures["anabranch_leaf_ready", "leaf1"] == 1
    assert figures["anabranch_leaf_inlets", "leaf1"] == 1
    assert figures["anabranch_seat_bytes_sent", "news"] == 1000
    assert figures["anabranch_seats_taken_total",] == 1
    assert figures["process_resident_memory_bytes",] > 1e6
    assert all(f.documentation for f in families.values())
