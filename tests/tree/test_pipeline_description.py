"""Descriptions of pipelines: what is understood, what is refused and how, any text at all."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.pipelines.description import (
    MAX_ELEMENTS,
    MAX_LENGTH,
    DescriptionError,
    parse,
    with_ports,
)
from anabranch.tree.pipelines.elements import CAPS, ELEMENTS, OUTLET, SOURCE
from anabranch.tree.soleil.messages import Fault

RELAY = "anabranchsrc stream=news ! tee name=t  t. ! queue ! anabranchsink name=a  t. ! queue ! anabranchsink name=b"  # noqa: E501


def refused(text: str) -> tuple[Fault, str]:
    with pytest.raises(DescriptionError) as caught:
        parse(text)
    return caught.value.fault, str(caught.value)


def test_a_relay_is_a_graph():
    graph = parse(RELAY)
    assert [(each.name, each.factory) for each in graph.elements] == [
        ("anabranchsrc0", "anabranchsrc"),
        ("t", "tee"),
        ("queue0", "queue"),
        ("a", "anabranchsink"),
        ("queue1", "queue"),
        ("b", "anabranchsink"),
    ]
    assert graph.links == (
        ("anabranchsrc0", "t"),
        ("t", "queue0"),
        ("queue0", "a"),
        ("t", "queue1"),
        ("queue1", "b"),
    )
    assert graph.outlets == ("a", "b")
    assert graph.sources[0].properties == {"stream": "news"}


@pytest.mark.parametrize(
    "caps",
    [
        "video/x-raw,width=320,height=180,framerate=25/1",
        "video/x-raw, width=(int)320, height=180 ,framerate=(fraction)25",
        'capsfilter caps="video/x-raw, width=320, height=180, framerate=25/1"',
    ],
)
def test_caps_are_read_in_every_way_of_writing(caps):
    graph = parse(f"videotestsrc!{caps} ! x264enc ! rtph264pay ! anabranchsink name=o")
    filter_ = next(each for each in graph.elements if each.factory == "capsfilter")
    assert filter_.properties == {"caps": "video/x-raw,width=320,height=180,framerate=25/1"}


def test_an_element_may_be_linked_before_it_is_described():
    graph = parse("anabranchsrc stream=x ! q.  queue name=q ! anabranchsink name=o")
    assert set(graph.links) == {("anabranchsrc0", "q"), ("q", "o")}


def test_given_names_are_never_given_again():
    graph = parse("videotestsrc ! queue ! queue name=queue0 ! queue ! anabranchsink name=o")
    assert [each.name for each in graph.elements][1:4] == ["queue1", "queue0", "queue2"]


@pytest.mark.parametrize(
    "element",
    [
        "filesrc", "fdsrc", "shmsrc", "souphttpsrc", "tcpclientsrc", "udpsrc", "rtspsrc", "v4l2src",
        "uridecodebin", "decodebin", "playbin", "filesink", "multifilesink", "udpsink",
        "tcpserversink", "splitmuxsink", "appsink", "rtpbin", "bin", "pipeline", "giosrc",
        "dataurisrc", "filesrc0", "file:///etc/passwd", "(", "bin.(", "{",
    ],
)  # fmt: skip
def test_other_elements_are_refused_by_name(element):
    fault, text = refused(f"{element} ! anabranchsink name=o")
    assert fault is Fault.FORBIDDEN
    assert text == f"{element!r} is none of the elements that a pipeline may have"


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ("x264enc option-string=dump-yuv=/tmp/x", "'option-string' of x264enc may not be set"),
        ("x264enc multipass-cache-file=/tmp/x", "'multipass-cache-file' of x264enc may not"),
        ("videotestsrc is-live=false", "'is-live' of videotestsrc may not be set"),
        ("queue max-size-buffers=0", "max-size-buffers='0' of queue is not allowed: 1 to 10000"),
        ("queue leaky=sideways", "leaky='sideways' of queue is not allowed: no, upstream"),
        ("anabranchsrc stream=x port=53", "port='53' of anabranchsrc is not allowed: 1024 to"),
        ("anabranchsrc stream=../etc", "stream='../etc' of anabranchsrc is not allowed: a name"),
        ("anabranchsrc stream=x address=0.0.0.0", "'address' of anabranchsrc may not be set"),
        ("anabranchsink name=o clients=192.0.2.1:9", "'clients' of anabranchsink may not be set"),
        ("video/x-raw,width=99999", "video/x-raw with width: 16 to 3840"),
        ("video/x-raw,width=[1,2]", "video/x-raw with width: 16 to 3840"),
        ("video/x-raw(memory:DMABuf)", "caps of application/x-rtp, audio/x-opus"),
        ("text/html", "caps of application/x-rtp, audio/x-opus"),
        ("video/x-vp8,width=3", "video/x-vp8 with no field, each once"),
        ("video/x-raw,framerate=1/0", "video/x-raw with framerate: above 0, up to 120/1"),
    ],
)
def test_other_values_are_refused_and_it_is_said_what_is_allowed(element, text):
    fault, said = refused(element)
    assert fault is Fault.FORBIDDEN
    assert text in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no element"),
        ("  ", "there is no element"),
        ("queue name=q", "q needs one input"),
        ("queue", "queue0 needs one input"),
        ("! queue", "there is nothing in front of a !"),
        ("queue ! ! queue", "there is nothing in front of a !"),
        ("anabranchsrc stream=x !", "there is nothing behind the last !"),
        ('queue name="q', 'a " is not closed'),
        ("name=q queue", "'name' belongs to no element"),
        ("anabranchsrc stream=x ! t.src_0", "'t.src_0': pads cannot be chosen"),
        ("anabranchsrc stream=x ! nobody.", "no element is called nobody"),
        ("tee name=t t.", "t. is linked to nothing"),
        ("anabranchsrc ! anabranchsink name=o", "anabranchsrc needs stream="),
        ("anabranchsrc stream=x ! anabranchsink", "anabranchsink needs name="),
        ("queue name=q name=r", "queue has two values for 'name'"),
        ("queue name=q ! queue name=q", "two elements are called q"),
        ("anabranchsrc stream=x", "anabranchsrc0 needs one output; more are a tee's"),
        ("anabranchsrc stream=x ! tee", "tee0 needs one output; more are a tee's"),
        ("queue name=q ! queue ! q.", "q is part of a circle"),
        ("anabranchsrc stream=x ! anabranchsrc stream=y", "anabranchsrc1 has no input"),
        ("videotestsrc ! anabranchsink name=o ! queue", "o has no output"),
        (
            "anabranchsrc stream=x ! anabranchsink name=o"
            " anabranchsrc stream=x ! anabranchsink name=p",
            "two sources have the stream x",
        ),
    ],
)  # fmt: skip
def test_what_is_no_pipeline_is_said_in_clear_words(text, said):
    assert refused(text) == (Fault.MALFORMED, said)


def test_size_is_limited():
    assert refused("x" * (MAX_LENGTH + 1))[0] is Fault.TOO_LARGE
    chain = " ! ".join(["queue"] * (MAX_ELEMENTS - 1))
    assert refused(f"videotestsrc ! {chain} ! anabranchsink name=o")[0] is Fault.TOO_LARGE
    assert refused(" ".join(["a."] * (MAX_LENGTH // 3)))[0] is Fault.MALFORMED


def test_ports_are_filled_in_where_there_are_none():
    text = (
        "anabranchsrc stream=x ! anabranchsink name=o"
        ' anabranchsrc name=y port=7000 stream="y" ! anabranchsink name=p'
        " anabranchsrc   stream=z ! anabranchsink name=r"
    )
    ports = {"anabranchsrc0": 6000, "y": 1, "anabranchsrc1": 6002}
    filled = with_ports(text, ports)
    assert [each.properties["port"] for each in parse(filled).sources] == ["6000", "7000", "6002"]
    assert with_ports(filled, {}) == filled
    assert filled.replace(" port=6000", "").replace(" port=6002", "") == text


@pytest.mark.parametrize(
    "piece",
    [" ", ",", " ,", ", ", "!", " !", '""', '" "', "a ", "t. ", "a=", "video/x-raw,", "queue "],
)
def test_the_longest_of_anything_is_read_at_once(piece):
    for text in (piece * (MAX_LENGTH // len(piece)), f"queue{piece * 1000} x{piece * 1000}"):
        with pytest.raises(DescriptionError):
            parse(text)


OTHERS = '! ! ! t. q. name=t name=q name=o stream=x stream=y port=5004 pt=96 , " filesrc leaky=no'
WORDS = st.sampled_from([*ELEMENTS, "video/x-raw,width=640", "caps=video/x-raw", *OTHERS.split()])


@given(st.one_of(st.text(), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_is_a_graph_or_refused(text):
    try:
        graph = parse(text)
    except DescriptionError:
        return
    names = {each.name for each in graph.elements}
    assert len(names) == len(graph.elements)
    assert {name for link in graph.links for name in link} == names
    for element in graph.elements:
        assert element.properties.keys() <= ELEMENTS[element.factory].properties.keys()


def test_the_documented_list_is_the_list():
    text = (
        (Path(__file__).parents[2] / "docs/tree.md")
        .read_text()
        .partition("## Pipelines")[2]
        .partition("## Failure")[0]
    )
    documented = {}
    for row in re.findall(r"^\| (`.*) \|(.*)\|$", text, re.MULTILINE):
        factories, properties = (set(re.findall(r"`([^`]+)`", cell)) for cell in row)
        documented |= dict.fromkeys(factories - {"gstreamer1.0-libav"}, properties)
    assert documented == {name: set(shape.properties) for name, shape in ELEMENTS.items()}
    assert all(f"`{media}`" in text for media in CAPS)
    example = text.partition("```\n")[2].partition("```")[0]
    assert parse(example).outlets == ("full", "low")


@st.composite
def relays(draw):
    """A pipeline of one source and a random tree of tees and chains."""
    numbers = iter(range(1000))
    middle = ["queue", "queue leaky=downstream", "rtpjitterbuffer latency=100", "application/x-rtp"]

    def below(depth):
        chain = "".join(
            f" ! {each}" for each in draw(st.lists(st.sampled_from(middle), max_size=2))
        )
        if depth == 0 or draw(st.booleans()):
            return f"{chain} ! {OUTLET} name=o{next(numbers)}"
        name = f"t{next(numbers)}"
        branches = "".join(f"  {name}.{below(depth - 1)}" for _ in range(draw(st.integers(1, 3))))
        return f"{chain} ! tee name={name}{branches}"

    return f"{SOURCE} stream=news{below(2)}"


@given(relays())
def test_any_tree_of_branches_is_understood(text):
    graph = parse(text)
    assert len(graph.outlets) == text.count(OUTLET)
    assert len(graph.links) == len(graph.elements) - 1
