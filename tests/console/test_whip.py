"""WHIP: the rules of RFC 9725, and who may publish where."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from tests.console.conftest import KEY, OPERATOR, add_channel
from tests.media.publish_offers import CHROMIUM, OBS

from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Definition
from anabranch.core.events import Event
from anabranch.media.gate import Passing, PublisherNews
from anabranch.media.leaf import LeafUnavailableError
from anabranch.media.publish_answer import PublishOffer
from anabranch.media.source import RtpStream, Source, WhipSource
from anabranch.site.site import Site

STAGE_KEY = "s" * 24
SDP = {"Content-Type": "application/sdp", "Origin": "https://page.example"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


class MemoryGate:
    """A gate that answers every good offer with the same words."""

    def __init__(self) -> None:
        self.ready = True
        self.child = None
        self.admitted: dict[str, tuple[PublishOffer, Sequence[RtpStream], int]] = {}
        self.fails: Exception | None = None

    async def admit(
        self,
        publisher: str,
        offer: PublishOffer,
        streams: Sequence[RtpStream],
        kbps: int,
        passing: Passing | None = None,
    ) -> str:
        if self.fails is not None:
            raise self.fails
        self.admitted[publisher] = (offer, streams, kbps)
        return "v=0\r\n"

    async def ask_key_frame(self, publisher: str) -> None:
        pass

    async def close(self, publisher: str) -> None:
        self.admitted.pop(publisher, None)

    async def stop(self) -> None:
        pass


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, Source | None]]:
    """Who publishes into ``stage`` and what is read then: no ffmpeg is started."""
    found: list[tuple[str | None, Source | None]] = []

    async def follow(channel: Channel, source: Source | None = None) -> None:
        found.append((channel.publisher, source))

    monkeypatch.setattr(Channel, "follow_publisher", follow)
    return found


@pytest.fixture
async def gate(site: Site, followed: list[object]) -> AsyncIterator[MemoryGate]:
    """Two channels by WHIP, ``stage`` and ``field``, beside the RTMP channel; and a gate."""
    for number, (name, key) in enumerate((("stage", STAGE_KEY), ("field", "f" * 24)), 2):
        add_channel(site, Definition(name, name, "whip", False, key, number))
    made = MemoryGate()
    site.whip._gate = made  # type: ignore[assignment]
    yield made
    for task in list(site._tasks):
        task.cancel()


async def offer(
    client: httpx.AsyncClient,
    path: str = "/whip/stage",
    key: str | None = STAGE_KEY,
    content: str | bytes = CHROMIUM,
    **headers: str,
) -> httpx.Response:
    given = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return await client.post(path, content=content, headers={**SDP, **given, **headers})


def readable(answer: httpx.Response, status: int) -> None:
    """Publishers on other origins must be able to read it, whatever it is."""
    assert answer.status_code == status, answer.text
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert STAGE_KEY not in answer.text


async def test_a_publisher_comes_and_goes(
    client: httpx.AsyncClient,
    site: Site,
    gate: MemoryGate,
    followed: list[tuple[str | None, Source | None]],
) -> None:
    answer = await offer(client)
    readable(answer, 201)
    assert (answer.headers["content-type"], answer.text) == ("application/sdp", "v=0\r\n")
    ((publisher, (_, streams, kbps)),) = gate.admitted.items()
    place = answer.headers["location"]
    assert place == f"/whip/stage/{publisher}"
    assert len(publisher) >= 16
    assert kbps == 3000  # three times the best rendition
    assert [(stream.codec, stream.payload_type) for stream in streams] == [
        ("h264", 103),
        ("opus", 111),
    ]
    assert len({stream.port for stream in streams}) == 2
    await asyncio.sleep(0)
    assert followed == [(publisher, WhipSource(tuple(streams)))]

    tag = answer.headers["etag"]
    readable(await client.patch(place, headers=TRICKLE, content="a=candidate"), 204)
    readable(await client.patch(place, headers={**TRICKLE, "If-Match": tag}, content="x"), 204)
    readable(await client.patch(place, headers={**TRICKLE, "If-Match": '"x"'}, content="x"), 412)
    readable(await client.patch(place, headers={**TRICKLE, "If-Match": "*"}, content="x"), 422)
    readable(await client.patch(place, headers=SDP, content="x"), 415)
    readable(await client.get(place), 405)

    readable(await client.delete(place), 200)
    assert gate.admitted == {}
    assert site.channel("stage").publisher is None
    await asyncio.sleep(0)
    assert followed[-1] == (None, None)
    readable(await client.delete(place), 404)
    readable(await client.patch(place, headers=TRICKLE, content="x"), 404)
    readable(await offer(client), 201)


async def test_the_key_alone_names_the_channel(client: httpx.AsyncClient, gate: MemoryGate) -> None:
    answer = await offer(client, "/whip", "f" * 24, OBS)
    readable(answer, 201)
    assert answer.headers["location"].startswith("/whip/field/")
    readable(await offer(client, "/whip", "f" * 23), 401)
    readable(await offer(client, "/whip", KEY), 401)  # of the RTMP channel


@pytest.mark.parametrize("key", [None, "", "wrong", "f" * 24, KEY, "s" * 25, "sé"])
async def test_without_the_key_nobody_comes_in(
    client: httpx.AsyncClient, site: Site, gate: MemoryGate, key: str | None
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode("latin-1")}
    answer = await client.post("/whip/stage", content=CHROMIUM, headers={**SDP, **headers})  # type: ignore[dict-item]
    readable(answer, 401)
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith("Bearer")
    assert ("invalid_token" in challenge) is bool(key)  # RFC 6750 section 3.1
    assert gate.admitted == {}
    assert site.channel("stage").publisher is None


@pytest.mark.parametrize(
    ("path", "kind", "body", "status"),
    [
        ("/whip/other", "application/sdp", CHROMIUM, 404),
        ("/whip/news", "application/sdp", CHROMIUM, 404),  # fed by RTMP
        ("/whip/stage", "application/json", CHROMIUM, 415),
        ("/whip/stage", "", CHROMIUM, 415),
        ("/whip/stage", "application/sdp", "", 422),
        ("/whip/stage", "application/sdp", "garbage", 422),
        ("/whip/stage", "application/sdp", b"v=0\r\n\xff\xfe", 422),
        ("/whip/stage", "application/sdp", CHROMIUM.replace("sendonly", "recvonly"), 422),
        ("/whip/stage", "application/sdp", b"v=0\r\n" + b"a=x\r\n" * 14_000, 413),
        ("/whip/stage", "application/sdp", b"x" * 200_000, 413),
        ("/whip/stage/a/b", "application/sdp", CHROMIUM, 404),
    ],
)
async def test_a_refusal_can_be_read_from_any_origin(
    client: httpx.AsyncClient,
    site: Site,
    gate: MemoryGate,
    path: str,
    kind: str,
    body: str | bytes,
    status: int,
) -> None:
    readable(await offer(client, path, content=body, **{"Content-Type": kind}), status)
    assert gate.admitted == {}
    assert site.channel("stage").publisher is None


async def test_a_second_publisher_is_refused_while_the_first_is_there(
    client: httpx.AsyncClient, site: Site, gate: MemoryGate
) -> None:
    readable(await offer(client), 201)
    first = site.channel("stage").publisher
    readable(await offer(client), 409)
    assert site.channel("stage").publisher == first
    readable(await offer(client, "/whip/field", "f" * 24), 201)


async def test_without_a_gate_it_is_503_and_when_to_come_back(
    client: httpx.AsyncClient, site: Site, gate: MemoryGate
) -> None:
    gate.ready = False
    answer = await offer(client)
    readable(answer, 503)
    assert answer.headers["retry-after"] == "1"
    gate.ready, gate.fails = True, LeafUnavailableError("it restarts")
    readable(await offer(client), 503)
    gate.fails = ZeroDivisionError("never seen")
    readable(await offer(client), 500)
    gate.fails = None
    readable(await offer(client), 201)
    site.whip._gate = None
    readable(await offer(client, "/whip/field", "f" * 24), 503)


async def test_what_the_gate_tells_becomes_events(
    client: httpx.AsyncClient, site: Site, gate: MemoryGate
) -> None:
    seen: list[Event] = []
    site.whip._on_event = seen.append
    place = (await offer(client)).headers["location"]
    publisher = place.rpartition("/")[2]
    site.whip._heard(PublisherNews(publisher, "up", "192.0.2.1:5000"))
    site.whip._heard(PublisherNews("stranger", "up", "192.0.2.2:5000"))
    site.whip._heard(PublisherNews(publisher, "gone", "silent"))
    site.whip._heard(PublisherNews(publisher, "gone", "silent"))
    assert site.channel("stage").publisher is None
    readable(await offer(client, key="wrong"), 401)
    assert [(each.kind, each.subject, dict(each.data)) for each in seen] == [
        ("publisher.came", "stage", {"address": "192.0.2.1:5000"}),
        ("publisher.left", "stage", {"why": "silent"}),
        ("publisher.refused", "stage", {"address": "127.0.0.1"}),
    ]
    readable(await client.delete(place), 404)


@pytest.mark.usefixtures("gate")
async def test_the_operator_is_told_the_way_in_and_others_that_there_is_one(
    client: httpx.AsyncClient,
) -> None:
    detail = (await client.get("/api/channels/stage/detail", headers=OPERATOR)).json()
    assert detail["key"] == STAGE_KEY
    assert detail["publish"]["OBS server"] == "http://127.0.0.1:8080/whip/stage"
    assert detail["publish"]["OBS bearer token"] == STAGE_KEY
    listed = (await client.get("/api/channels")).json()["channels"]
    assert {each["name"]: each["whip"] for each in listed} == {
        "news": False,
        "stage": True,
        "field": True,
    }


@pytest.mark.parametrize("path", ["/whip", "/whip/stage", "/whip/stage/publisher"])
async def test_a_browser_may_ask_first(client: httpx.AsyncClient, path: str) -> None:
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    answer = await client.options(path, headers=asked)
    readable(answer, 204)
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["accept-post"] == "application/sdp"
