"""Captions: what may be one, and how long it is there."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.console.conftest import KEY, add_channel

from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Definition
from anabranch.core.errors import TooManyError, UsageError
from anabranch.core.events import Event
from anabranch.site.captions import LONGEST_S, MAX_LINES, MAX_TEXT, Captions, check_text
from anabranch.site.site import Site


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def captions(clock: Clock, told: list[Event]) -> Captions:
    return Captions(told.append, clock)


@pytest.fixture
def news(site: Site) -> Channel:
    return site.channel("news")


def test_one_is_there_as_long_as_it_takes_to_read_it(
    captions: Captions, clock: Clock, news: Channel, told: list[Event]
) -> None:
    shown = captions.show(news, "  Good evening. \n  Here is the news.  ")
    assert shown.text == "Good evening.\nHere is the news."
    assert 1.5 < shown.duration_s < 3
    assert captions.show(news, "x" * MAX_TEXT).duration_s <= LONGEST_S
    last = captions.show(news, "Yes.", 2.0)
    assert captions.of(news) is last
    clock.now += 1.99
    assert captions.of(news) is last
    clock.now += 0.02
    assert captions.of(news) is None
    assert [(event.kind, event.subject) for event in told] == [("caption.shown", "news")] * 3


def test_the_same_words_again_are_another_caption(captions: Captions, news: Channel) -> None:
    assert captions.show(news, "Ha!") != captions.show(news, "Ha!")


def test_an_empty_one_takes_the_one_before_away(
    captions: Captions, clock: Clock, news: Channel
) -> None:
    captions.show(news, "Long", 30)
    shown = captions.show(news, " \n ", 10)
    assert (shown.text, shown.duration_s) == ("", 0)
    assert captions.of(news) is shown  # for a moment, to be told
    clock.now += 5
    assert captions.of(news) is None


def test_a_channel_has_captions_for_a_while_after_the_last(
    captions: Captions, clock: Clock, news: Channel
) -> None:
    assert not captions.are_made(news)
    captions.show(news, "Hello")
    clock.now += 599
    assert captions.are_made(news)
    clock.now += 2
    assert not captions.are_made(news)


def test_more_than_ten_a_second_are_refused(
    captions: Captions, clock: Clock, news: Channel
) -> None:
    for _ in range(10):
        captions.show(news, "a")
    with pytest.raises(TooManyError):
        captions.show(news, "one too many")
    clock.now += 0.11
    captions.show(news, "b")
    with pytest.raises(TooManyError):
        captions.show(news, "c")
    clock.now += 3600
    for _ in range(10):
        captions.show(news, "d")


def test_a_refused_one_leaves_what_is_there(captions: Captions, news: Channel) -> None:
    shown = captions.show(news, "This")
    with pytest.raises(UsageError):
        captions.show(news, "x" * (MAX_TEXT + 1))
    assert captions.of(news) is shown


def test_a_new_channel_of_an_old_name_begins_without(
    captions: Captions, site: Site, told: list[Event]
) -> None:
    add_channel(site, Definition("brief", "Brief", "rtmp", False, KEY[::-1], 2))
    captions.show(site.channel("brief"), "Of the old one", 30)
    add_channel(site, Definition("brief", "Brief", "rtmp", False, KEY[::-1], 2))
    assert captions.of(site.channel("brief")) is None
    gc.collect()
    assert len(captions._said) == 0  # nothing is kept of it


@given(st.text(max_size=2 * MAX_TEXT))
def test_any_text_is_a_caption_or_one_error(text: str) -> None:
    try:
        checked = check_text(text)
    except UsageError:
        return
    assert len(checked) <= MAX_TEXT
    lines = checked.split("\n")
    assert len(lines) <= MAX_LINES
    assert all(line.isprintable() and line == line.strip() for line in lines)
    assert check_text(checked) == checked


@pytest.mark.parametrize(
    "text", ["a\x00b", "a\x1b[31m", "\u202e", "a\rb", "1\n2\n3\n4\n5", "\ud800"]
)
def test_control_characters_and_columns_of_lines_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_text(text)
