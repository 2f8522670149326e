"""RFC 9111 and RFC 9110 as a shared cache follows them."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.blocks import http_caching as caching
from anabranch.services.blocks.http_target import TargetError, checked_target

DATE = formatdate(1_000_000_000, usegmt=True)


def later(seconds: int) -> str:
    return formatdate(1_000_000_000 + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("response", "lifetime", "stale"),
    [
        ({}, 60.0, True),
        ({"cache-control": "max-age=30"}, 30.0, True),
        ({"cache-control": "max-age=30, s-maxage=9"}, 9.0, False),
        ({"cache-control": 'max-age="30", must-revalidate'}, 30.0, False),
        ({"cache-control": "max-age=30, no-cache"}, 0.0, False),
        ({"cache-control": "max-age=-1"}, 0.0, True),
        ({"cache-control": "max-age=soon"}, 0.0, True),
        ({"date": DATE, "expires": later(40)}, 40.0, True),
        ({"date": DATE, "expires": later(-40)}, 0.0, True),
        ({"date": DATE, "expires": "0"}, 0.0, True),
        ({"date": DATE, "last-modified": later(-1000)}, 60.0, True),
    ],
)
def test_lifetimes(response: dict[str, str], lifetime: float, stale: bool) -> None:
    found = caching.freshness(response, default=60.0)
    assert found == caching.Freshness(lifetime, stale)


@pytest.mark.parametrize(
    ("request_", "status", "response", "expected"),
    [
        ({}, 200, {}, True),
        ({}, 404, {}, True),
        ({}, 500, {}, False),
        ({}, 206, {}, False),
        ({}, 200, {"cache-control": "no-store"}, False),
        ({}, 200, {"cache-control": "Private"}, False),
        ({}, 200, {"set-cookie": "a=b"}, False),
        ({}, 200, {"vary": "Accept-Encoding"}, True),
        ({}, 200, {"vary": "Cookie"}, False),
        ({}, 200, {"vary": "*"}, False),
        ({"authorization": "x"}, 200, {}, False),
        ({"authorization": "x"}, 200, {"cache-control": "public"}, True),
    ],
)
def test_what_may_be_kept(request_: dict, status: int, response: dict, expected: bool) -> None:
    assert caching.storable(request_, status, response) is expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 10)),
        ("bytes=5-99", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=1-2,4-5", None),
        ("lines=1-2", None),
        ("bytes=٣-", None),
    ],
)
def test_ranges(text: str | None, part: tuple[int, int] | None) -> None:
    assert caching.part_asked(text, 10) == part


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_ranges_of_nothing(text: str) -> None:
    with pytest.raises(caching.UnsatisfiableRangeError):
        caching.part_asked(text, 10)


@given(st.text(max_size=40), st.integers(0, 2**40))
def test_any_range_is_within_the_object(text: str, length: int) -> None:
    for given_text in (text, f"bytes={text}"):
        try:
            part = caching.part_asked(given_text, length)
        except caching.UnsatisfiableRangeError:
            continue
        assert part is None or 0 <= part[0] < part[1] <= length


@given(st.dictionaries(
    st.sampled_from(["cache-control", "date", "expires", "last-modified", "vary", "age", "etag"]),
    st.text(max_size=60),
))  # fmt: skip
def test_any_fields_have_a_lifetime(fields: dict[str, str]) -> None:
    found = caching.freshness(fields, default=1.0)
    assert 0 <= found.lifetime < 1e11
    assert caching.initial_age(fields) >= 0
    caching.storable({}, 200, fields)
    caching.unchanged_for({"if-none-match": fields.get("etag", "")}, fields)


def test_conditions() -> None:
    answer = {"etag": '"a"', "last-modified": DATE}
    assert caching.unchanged_for({"if-none-match": '"b", W/"a"'}, answer)
    assert caching.unchanged_for({"if-none-match": "*"}, answer)
    assert not caching.unchanged_for({"if-none-match": '"b"', "if-modified-since": DATE}, answer)
    assert caching.unchanged_for({"if-modified-since": DATE}, answer)
    assert not caching.unchanged_for({"if-modified-since": later(-1)}, answer)
    assert not caching.unchanged_for({"if-none-match": ""}, {})
    assert caching.range_applies('"a"', answer)
    assert caching.range_applies(DATE, answer)
    assert not caching.range_applies('W/"a"', {"etag": 'W/"a"'})
    assert caching.questions(answer) == {"if-none-match": '"a"', "if-modified-since": DATE}
    fields = {"connection": "close, X-Hop", "x-hop": "1", "te": "x", "etag": '"a"'}
    assert caching.end_to_end(fields) == {"etag": '"a"'}


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [(b"/", b"", "/"), (b"/a/b%20c.mp4", b"q=1&x=%2F..", "/a/b%20c.mp4?q=1&x=%2F.."),
     (b"/a..b/...", b"", "/a..b/...")],
)  # fmt: skip
def test_targets(path: bytes, query: bytes, target: str) -> None:
    assert checked_target(path, query) == target


@pytest.mark.parametrize(
    "path",
    [b"", b"*", b"a", b"//evil/x", b"http://evil/x", b"/../x", b"/a/%2e%2E/x", b"/a%2f..%2fx",
     b"/a\\..\\x", b"/a%5c..", b"/a%00", b"/a%0d%0aX: y", b"/a\r\nX: y", b"/\xff", b"/a b",
     b"/a#b", b"/" + b"a" * 5000],
)  # fmt: skip
def test_targets_that_lead_elsewhere(path: bytes) -> None:
    with pytest.raises(TargetError):
        checked_target(path, b"")


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_bytes_are_a_target_or_an_error(path: bytes, query: bytes) -> None:
    try:
        target = checked_target(b"/" + path, query)
    except TargetError:
        return
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
