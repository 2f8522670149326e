"""What a node decides about pipelines before any of them runs."""

import json
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.pipelines.counters import (
    Broken,
    Figures,
    Playing,
    Received,
    Sent,
    read_event,
)
from anabranch.tree.pipelines.definitions import CommandError, Definitions, worker_config
from anabranch.tree.pipelines.description import MAX_LENGTH
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.soleil.messages import Endpoint, Fault, PipeDef, RoutePipeline

OVERLAY = Overlay(
    "10.98.0.5",
    range(6000, 6004),
    (ip_network("10.98.0.0/24"), ip_network("239.192.0.0/16"), ip_network("2001:db8::/32")),
)


def relay(*streams: str) -> str:
    return " ".join(
        f"anabranchsrc {stream} ! anabranchsink name=o{number}"
        for number, stream in enumerate(streams)
    )


def defined(definitions: Definitions, name: str, *streams: str):
    pipeline = definitions.define(PipeDef(name, relay(*streams)))
    definitions.pipelines[name] = pipeline
    return pipeline


def fault_of(do, *given_):
    with pytest.raises(CommandError) as caught:
        do(*given_)
    return caught.value.fault


def test_sources_without_a_port_have_free_ones_and_the_description_says_which():
    definitions = Definitions(OVERLAY)
    one = defined(definitions, "one", "stream=x", "stream=y port=6000")
    two = defined(definitions, "two", "stream=x")
    assert (one.ports, two.ports) == ({"x": 6001, "y": 6000}, {"x": 6002})
    assert one.description == relay("port=6001 stream=x", "stream=y port=6000")


def test_ports_are_never_shared_nor_any():
    definitions = Definitions(OVERLAY)
    defined(definitions, "one", "stream=x")
    define = definitions.define
    assert fault_of(define, PipeDef("two", relay("stream=x port=6000"))) is Fault.CONFLICT
    assert fault_of(define, PipeDef("two", relay("stream=x port=22000"))) is Fault.FORBIDDEN
    four = relay("stream=a", "stream=b", "stream=c", "stream=d")
    assert fault_of(define, PipeDef("two", four)) is Fault.FAILED
    assert fault_of(define, PipeDef("two", "filesrc")) is Fault.FORBIDDEN
    assert list(definitions.pipelines) == ["one"]


def test_a_new_definition_keeps_ports_and_routes_of_what_it_has_in_common():
    definitions = Definitions(OVERLAY)
    old = defined(definitions, "one", "stream=x", "stream=y")
    old.routes["o1"] = (Endpoint("10.98.0.7", 5004),)
    new = defined(definitions, "one", "stream=new", "stream=x")
    assert new.ports == {"new": 6001, "x": 6000}
    assert new.routes == {"o0": (), "o1": (Endpoint("10.98.0.7", 5004),)}


def test_a_description_must_leave_room_for_its_ports():
    definitions = Definitions(OVERLAY)
    text = relay("stream=x").ljust(MAX_LENGTH - 4)
    assert fault_of(definitions.define, PipeDef("one", text)) is Fault.TOO_LARGE


@given(st.lists(st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=3, unique=True)))
def test_no_two_sources_ever_have_the_same_port(defined_one_after_another):
    definitions = Definitions(OVERLAY)
    for number, streams in enumerate(defined_one_after_another):
        name = "one" if number % 2 else "two"
        before = definitions.pipelines.get(name)
        try:
            pipeline = defined(definitions, name, *(f"stream={stream}" for stream in streams))
        except CommandError as error:
            assert error.fault is Fault.FAILED  # noqa: PT017
            continue
        if before is not None:
            common = before.ports.keys() & pipeline.ports.keys()
            assert all(before.ports[stream] == pipeline.ports[stream] for stream in common)
        ports = [port for each in definitions.pipelines.values() for port in each.ports.values()]
        assert len(ports) == len(set(ports))
        assert set(ports) <= set(OVERLAY.ports)


def test_their_number_is_limited_but_one_may_be_defined_anew():
    definitions = Definitions(OVERLAY, 1)
    defined(definitions, "one", "stream=x")
    defined(definitions, "one", "stream=y")
    assert fault_of(definitions.define, PipeDef("two", relay("stream=x"))) is Fault.FAILED


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("192.0.2.1", 5004),
        ("127.0.0.1", 5004),
        ("10.98.1.1", 5004),
        ("leaf-7", 5004),
        ("::1", 5004),
        ("10.98.0.6", 53),
        ("10.98.0.5", 6001),
    ],
)
def test_an_outlet_cannot_be_routed_off_the_overlay_or_into_the_node_itself(host, port):
    definitions = Definitions(OVERLAY)
    defined(definitions, "one", "stream=x")
    to = (Endpoint("10.98.0.6", 5004), Endpoint(host, port))
    assert fault_of(definitions.route, RoutePipeline("one", "o0", to)) is Fault.FORBIDDEN


def test_a_route_has_every_address_once_in_its_usual_form():
    definitions = Definitions(OVERLAY)
    one = defined(definitions, "one", "stream=x")
    twice = (Endpoint("2001:db8:0::7", 5004), Endpoint("239.192.0.1", 5004))
    to = (*twice, Endpoint("2001:db8::7", 5004))
    expected = (Endpoint("2001:db8::7", 5004), Endpoint("239.192.0.1", 5004))
    assert definitions.route(RoutePipeline("one", "o0", to)) == (one, expected)
    assert fault_of(definitions.route, RoutePipeline("one", "o9", ())) is Fault.NOT_FOUND
    assert fault_of(definitions.route, RoutePipeline("nine", "o0", ())) is Fault.NOT_FOUND


def test_the_worker_is_told_addresses_that_no_description_has():
    definitions = Definitions(OVERLAY)
    text = "videotestsrc pattern=ball ! x264enc ! rtph264pay ! anabranchsink name=o"
    pipeline = definitions.define(PipeDef("one", text))
    pipeline.routes["o"] = (Endpoint("10.98.0.7", 5004),)
    picture, *_, outlet = worker_config(pipeline, OVERLAY)["elements"]
    assert picture["properties"] == {"pattern": "ball", "is-live": "true"}
    assert outlet == {
        "kind": "outlet",
        "name": "o",
        "address": "10.98.0.5",
        "interface": None,
        "ttl": 16,
        "to": [["10.98.0.7", 5004]],
    }


def test_what_a_worker_says_is_read():
    assert read_event('{"event": "playing"}') == Playing()
    assert read_event('{"event": "error", "detail": "x"}') == Broken("x")
    line = '{"event": "stats", "sources": {"x": [9, 900, 1, 0.5]}, "outlets": {"o": [9, 1008]}}'
    assert read_event(line) == Figures({"x": Received(9, 900, 1, 0.5)}, {"o": Sent(9, 1008)})


@pytest.mark.parametrize("numbers", ["[9, 1]", "[9,1,-1,0]", "[1,1,1,NaN]", "[1,1,true,0]", "{}"])
def test_figures_that_cannot_be_are_passed_over(numbers):
    line = f'{{"event": "stats", "sources": {{"x": {numbers}}}, "outlets": {{}}}}'
    assert read_event(line) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(
    st.text()
    | st.fixed_dictionaries(
        {"event": st.sampled_from(["playing", "error", "stats", "x"])},
        optional={"detail": JSON, "sources": JSON, "outlets": JSON},
    ).map(json.dumps)
)
def test_anything_a_worker_says_is_an_event_or_none(line):
    assert isinstance(read_event(line), Playing | Broken | Figures | None)
