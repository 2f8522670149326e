"""WHEP: the rules of the draft, readable from any origin in success and in failure."""

import httpx
import pytest
from tests.console.conftest import OFFER, MemoryLeaf

from anabranch.media.leaf import LeafUnavailableError
from anabranch.site.site import Site

SDP = {"Content-Type": "application/sdp", "Origin": "https://player.example"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def offer(
    client: httpx.AsyncClient,
    path: str = "/whep/news",
    content: str | bytes = OFFER,
    **headers: str,
) -> httpx.Response:
    return await client.post(path, content=content, headers={**SDP, **headers})


def readable(answer: httpx.Response, status: int) -> None:
    """Players on other origins must be able to read it, whatever it is."""
    assert answer.status_code == status, answer.text
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


async def test_an_offer_is_answered_with_a_seat(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf
) -> None:
    answer = await offer(client)
    readable(answer, 201)
    assert (answer.headers["content-type"], answer.text) == ("application/sdp", "v=0\r\n")
    (seat,) = site.seats
    assert answer.headers["location"] == f"/whep/news/{seat.id}"
    assert {"Location", "Retry-After"} <= set(
        answer.headers["access-control-expose-headers"].split(", ")
    )
    assert leaf.viewings[seat.viewing].rendition == "high"

    place = answer.headers["location"]
    readable(await client.patch(place, headers=TRICKLE, content="a=candidate"), 204)
    readable(await client.patch(place, headers=SDP, content="x"), 415)
    readable(await client.delete(place), 200)
    assert (len(site.seats), leaf.viewings) == (0, {})
    readable(await client.delete(place), 404)
    readable(await client.patch(place, headers=TRICKLE, content="a=candidate"), 404)


async def test_a_rendition_can_be_asked_for(client: httpx.AsyncClient, site: Site) -> None:
    readable(await offer(client, "/whep/news?rendition=low"), 201)
    assert [seat.rendition for seat in site.seats] == ["low"]
    readable(await offer(client, "/whep/news?rendition=huge"), 404)
    readable(await offer(client, "/whep/news?rendition=" + "x" * 50), 422)


@pytest.mark.parametrize(
    ("path", "kind", "body", "status"),
    [
        ("/whep/other", "application/sdp", OFFER, 404),
        ("/whep/news", "application/json", OFFER, 415),
        ("/whep/news", "", OFFER, 415),
        ("/whep/news", "application/sdp", "", 422),
        ("/whep/news", "application/sdp", b"v=0\r\n\xff\xfe", 422),
        ("/whep/news", "application/sdp", OFFER.replace("H264", "VP8"), 422),
        ("/whep/news", "application/sdp", b"v=0\r\n" + b"a=x\r\n" * 14_000, 413),
        ("/whep/news", "application/sdp", b"x" * 200_000, 413),
        ("/whep/news/a/b", "application/sdp", OFFER, 404),
    ],
)
async def test_a_refusal_can_be_read_from_any_origin(
    client: httpx.AsyncClient, site: Site, path: str, kind: str, body: str | bytes, status: int
) -> None:
    readable(await offer(client, path, body, **{"Content-Type": kind}), status)
    assert len(site.seats) == 0


async def test_a_type_may_carry_parameters(client: httpx.AsyncClient) -> None:
    readable(await offer(client, **{"Content-Type": "Application/SDP ; charset=utf-8"}), 201)


async def test_a_leaf_that_is_not_ready_is_503_and_when_to_come_back(
    client: httpx.AsyncClient, leaf: MemoryLeaf
) -> None:
    leaf.ready = False
    answer = await offer(client)
    readable(answer, 503)
    assert answer.headers["retry-after"] == "1"
    leaf.ready, leaf.fails = True, LeafUnavailableError("it restarts")
    readable(await offer(client), 503)
    leaf.fails = ZeroDivisionError("never seen")
    readable(await offer(client), 500)
    leaf.fails = None
    readable(await offer(client), 201)


async def test_a_channel_that_is_removed_meanwhile_leaves_no_seat(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = leaf.watch

    async def slow(feed, text, **others):
        made = await watch(feed, text, **others)
        del site.lineup.channels["news"]
        return made

    monkeypatch.setattr(leaf, "watch", slow)
    readable(await offer(client), 404)
    assert (len(site.seats), leaf.viewings) == (0, {})


@pytest.mark.parametrize("path", ["/whep/news", "/whep/news/seat", "/whep/other"])
async def test_a_browser_may_ask_first(client: httpx.AsyncClient, path: str) -> None:
    asked = {"Origin": "https://player.example", "Access-Control-Request-Method": "POST"}
    answer = await client.options(path, headers=asked)
    readable(answer, 204)
    assert {"POST", "DELETE", "PATCH"} <= set(
        answer.headers["access-control-allow-methods"].split(", ")
    )
    assert "Content-Type" in answer.headers["access-control-allow-headers"]
    assert answer.headers["accept-post"] == "application/sdp"


async def test_a_wrong_method_can_be_read_and_the_rest_stays_closed(
    client: httpx.AsyncClient,
) -> None:
    readable(await client.get("/whep/news"), 405)
    for path in ("/api/channels", "/", "/metrics"):
        assert "access-control-allow-origin" not in (await client.get(path)).headers
