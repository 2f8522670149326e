"""ActiveCDN: the module with real sockets and ffmpeg, the provider's side, and its table."""

import asyncio
import runpy
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.films import duration, make_film
from tests.services.origin import Origin, plain, running_origin

from anabranch.app.provide_cdn_command import routing_api
from anabranch.services.blocks.transcoder import Transcoder
from anabranch.services.errors import ServicesError
from anabranch.services.module import Context
from anabranch.services.modules.activecdn.activecdn import ActiveCdn
from anabranch.services.modules.activecdn.locations import Locations, LocationsError, Place
from anabranch.services.modules.activecdn.provider import CdnProvider, Node, nodes_of
from anabranch.services.signalling.response import Hop
from anabranch.services.transcoding.service import TranscodingLimits, TranscodingService

BERLIN, PARIS, TOKYO = Place(52.52, 13.40), Place(48.86, 2.35), Place(35.68, 139.69)
TABLE = """# prefix, latitude, longitude, name
192.0.2.0/24, 52.52, 13.40, Berlin
192.0.2.128/25, 48.86, 2.35, "Paris, centre"
2001:db8::/32, 35.68, 139.69, Tokyo
198.51.100.0/24, 52.40, 13.00, Potsdam
"""


# The table


def test_the_longest_prefix_is_taken() -> None:
    table = Locations.parse(TABLE)
    for address, name in (("192.0.2.1", "Berlin"), ("192.0.2.200", "Paris, centre"),
                          ("2001:db8::1", "Tokyo")):  # fmt: skip
        found = table.find(ip_address(address))
        assert found is not None
        assert found[1].name == name
    assert table.find(ip_address("203.0.113.1")) is None
    assert BERLIN.distance_km(PARIS) == pytest.approx(878, abs=5)
    assert PARIS.distance_km(TOKYO) == pytest.approx(9712, abs=30)
    assert Place(0, 0).distance_km(Place(0, 180)) == pytest.approx(20015, abs=1)


@pytest.mark.parametrize(
    ("line", "words"),
    [("192.0.2.0/24", "PREFIX"), ("192.0.2.1/24,1,1", "host bits"), ("192.0.2.0/24,91,0", "globe"),
     ("192.0.2.0/24,nan,0", "globe"), ("192.0.2.0/24,x,0", "x"), ("x,1,1", "x")],
)  # fmt: skip
def test_a_bad_table_says_where(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"# one\n{line}\n")
    with pytest.raises(LocationsError, match=f"line 2.*{words}"):
        Locations.load(path)
    with pytest.raises(LocationsError, match="No such file"):
        Locations.load(tmp_path / "none")


@given(st.text(max_size=100))
def test_any_text_is_a_table_or_an_error(text: str) -> None:
    with suppress(LocationsError):
        Locations.parse(text)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=20),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_what_is_found_is_the_longest(prefixes: list[tuple[int, int]], number: int) -> None:
    table, networks = Locations(), []
    for start, length in prefixes:
        networks.append(ip_network((start, length), strict=False))
        table.put(networks[-1], BERLIN)
    address = ip_address(number)
    inside = [network for network in networks if address in network]
    found = table.find(address)
    longest = max(inside, key=lambda network: network.prefixlen, default=None)
    assert (found[0] if found else None) == longest


# The provider's side


class Nodes:
    """Stands for the nodes on two paths."""

    def __init__(self) -> None:
        self.here = Node("a", "10.9.1.1:80", ip_address("192.0.2.9"))
        self.far = Node("b", "10.9.2.1:80", ip_address("2001:db8::9"))
        self.installed: list[str] = []
        self.removed: list[str] = []
        self.broken = False

    async def install(self, towards: object) -> Sequence[Node]:
        self.installed.append(str(towards))
        if self.broken:
            raise ServicesError("no node answered")
        return [self.here, self.far] if ":" in str(towards) else [self.here]

    async def remove(self, towards: object) -> None:
        self.removed.append(str(towards))


async def turn(provider: CdnProvider) -> None:
    provider.turn()
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_first_of_a_region_is_served_and_the_next_are_redirected() -> None:
    nodes = Nodes()
    provider = CdnProvider(Locations.parse(TABLE), nodes, radius_km=500)
    assert provider.route(ip_address("192.0.2.1")) is None
    await turn(provider)
    assert nodes.installed == ["192.0.2.1"]
    assert provider.route(ip_address("192.0.2.77")) == "10.9.1.1:80"
    # Potsdam is near Berlin; Paris, though on the same line, is not
    assert provider.route(ip_address("198.51.100.1")) == "10.9.1.1:80"
    assert provider.route(ip_address("192.0.2.200")) is None
    await turn(provider)
    assert nodes.installed == ["192.0.2.1", "192.0.2.200"]
    assert provider.route(ip_address("192.0.2.201")) is None  # its one node is far from it
    assert provider.route(ip_address("2001:db8::1")) is None
    await turn(provider)
    assert provider.route(ip_address("2001:db8::1")) == "10.9.2.1:80"
    assert (provider.redirected, provider.served) == (3, 4)
    assert {node["node"] for node in provider.status()["nodes"]} == {"a", "b"}


async def test_a_region_in_no_table_has_the_nodes_on_its_way() -> None:
    nodes = Nodes()
    provider = CdnProvider(Locations(), nodes)
    assert provider.route(ip_address("203.0.113.1")) is None
    await turn(provider)
    assert provider.route(ip_address("203.0.113.2")) == "10.9.1.1:80"
    assert provider.route(ip_address("203.0.114.2")) is None


async def test_modules_expire_are_renewed_while_somebody_asks_and_removed_at_the_end() -> None:
    nodes = Nodes()
    provider = CdnProvider(Locations.parse(TABLE), nodes, ttl=0.6, renewal=0.1)
    client = ip_address("192.0.2.1")
    running = asyncio.create_task(provider.run())
    provider.route(client)
    while len(nodes.installed) < 2:
        await asyncio.sleep(0.05)
        provider.route(client)
    assert provider.route(client) == "10.9.1.1:80"
    await asyncio.sleep(2.0)  # nobody asks
    count = len(nodes.installed)
    assert provider.status()["nodes"] == []
    assert provider.route(client) is None
    while len(nodes.installed) == count:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert nodes.removed == ["192.0.2.1"]


async def test_nodes_that_have_gone_are_nobody_s() -> None:
    nodes = Nodes()
    provider = CdnProvider(Locations.parse(TABLE), nodes, renewal=0.0)
    client = ip_address("192.0.2.1")
    provider.route(client)
    await turn(provider)
    assert provider.route(client) == "10.9.1.1:80"
    nodes.broken = True
    await turn(provider)
    assert provider.route(client) is None
    await turn(provider)
    assert len(nodes.installed) == 2  # not at once again


def hop(**details: str) -> Hop:
    return Hop("a", 200, "probed", details)


def test_nodes_are_read_from_the_response_stack() -> None:
    good = {"serves": "10.9.1.1:80", "state": "running", "address": "192.0.2.1"}
    assert nodes_of([hop(**good)]) == [Node("a", "10.9.1.1:80", ip_address("192.0.2.1"))]
    for bad in ({"serves": "evil.example:80"}, {"serves": "10.9.1.1"}, {"state": "failed"},
                {"serves": "10.9.1.1:99999"}, {"address": "x"}, {"serves": "nowhere"}):  # fmt: skip
        assert nodes_of([hop(**{**good, **bad})]) == []


async def test_nginx_is_told_where_to_send_whom() -> None:
    provider = CdnProvider(Locations.parse(TABLE), Nodes())
    transport = httpx.ASGITransport(routing_api(provider, "/origin"))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:

        async def ask(target: str, address: str = "192.0.2.1") -> httpx.Response:
            return await client.get(target, headers={"X-Real-IP": address})

        first = await ask("/a%20b.mp4?x=1")
        assert first.headers["x-accel-redirect"] == "/origin/a%20b.mp4?x=1"
        await turn(provider)
        second = await ask("/a%20b.mp4?x=1")
        assert second.status_code == 302
        assert second.headers["location"] == "http://10.9.1.1/a%20b.mp4?x=1"
        assert second.headers["cache-control"] == "no-store"
        for target, address in (("/%2e%2e/x", "192.0.2.1"), ("/a%00b", "192.0.2.1"),
                                ("/a", "nobody"), ("/a", "")):  # fmt: skip
            assert (await ask(target, address)).status_code == 400
        assert (await client.get("/")).json()["redirected"] == 1


# The module


@asynccontextmanager
async def module(
    directory: Path, origin: Origin, transcoder: Transcoder | None = None, **properties: str
) -> AsyncIterator[tuple[ActiveCdn, httpx.AsyncClient]]:
    made = ActiveCdn()
    given_properties = {"origin": origin.url, "port": "0", **properties}
    made.configure(Context("ActiveCdn", "1", "x", given_properties, address="127.0.0.1",
                           directory=directory, transcoder=transcoder))  # fmt: skip
    made.start()
    try:
        base = f"http://{made.status()['serves']}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as client:
            yield made, client
    finally:
        await asyncio.to_thread(made.stop)


async def test_the_cache_is_there_again_after_a_new_version(tmp_path: Path) -> None:
    async with running_origin() as origin:
        origin.answers["/a"] = plain(b"body", cache_control="max-age=100")
        for _ in range(2):
            async with module(tmp_path, origin) as (made, client):
                assert (await client.get("/a")).content == b"body"
                assert len(made.status()) <= 20
        assert origin.count("/a") == 1


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
async def test_a_clip_comes_before_a_video(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", 2).read_bytes()
    clip = make_film(tmp_path / "clip.mp4", 1, size="64x64", sound=False).read_bytes()
    service = TranscodingService("x", TranscodingLimits())
    its = service.open()
    try:
        async with running_origin() as origin:
            origin.answers |= {
                "/video/film.mp4": plain(film, etag='"f1"', cache_control="max-age=0"),
                "/clip.mp4": plain(clip, etag='"c1"'),
                "/video/bad.mp4": plain(b"no film", etag='"b"'),
            }
            with_clip = {"clip": "/clip.mp4", "videos": "/video/*.mp4", "wait": "50"}
            async with module(tmp_path, origin, Transcoder(its), **with_clip) as (made, client):
                first, second = await asyncio.gather(*(client.get("/video/film.mp4")
                                                       for _ in range(2)))  # fmt: skip
                assert first.content == second.content
                out = tmp_path / "out.mp4"
                out.write_bytes(first.content)
                assert duration(out) == pytest.approx(3.0, abs=0.25)
                assert first.headers["content-type"] == "video/mp4"
                part = await client.get("/video/film.mp4", headers={"range": "bytes=4-7"})
                assert part.content == b"ftyp"
                assert part.headers["etag"] == first.headers["etag"]
                assert int(made.status()["answers.made"]) >= 2
                assert (await client.get("/clip.mp4")).content == clip
                assert (await client.get("/video/bad.mp4")).content == b"no film"
    finally:
        await service.close()
        its.close()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    found = runpy.run_path(str(Path(__file__).parents[2] / "examples/cache_at_the_edge.py"))
    assert found["main"]() == 0
    assert "asked 1 time for 6 users" in capsys.readouterr().out


@pytest.mark.parametrize(
    "properties",
    [{}, {"origin": "http://example.org"}, {"port": "x"}, {"port": "99999"}, {"host": "a\r\nb"},
     {"fresh": "nan"}, {"clip": "/../c", "videos": "*"}, {"clip": "/c.mp4"},
     {"clip": "/c.mp4", "at": "-1"}],
)  # fmt: skip
def test_bad_properties_are_refused(properties: dict[str, str], tmp_path: Path) -> None:
    usual = {"origin": "http://127.0.0.1"} if properties else {}
    context = Context("ActiveCdn", "1", "x", {**usual, **properties}, address="127.0.0.1",
                      directory=tmp_path)  # fmt: skip
    with pytest.raises(ValueError):  # noqa: PT011 - what the contract asks for
        ActiveCdn().configure(context)
