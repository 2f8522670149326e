"""Messages for tests: every body, as strategies of hypothesis."""

from hypothesis import strategies as st

from anabranch.tree.model import Role
from anabranch.tree.soleil.messages import (
    EVERYBODY,
    ROOT,
    Body,
    Bye,
    ChildsUpdate,
    Descendant,
    Endpoint,
    Error,
    Fault,
    FullStats,
    Hello,
    Kill,
    Message,
    Ping,
    PipeDef,
    PipeDefInfo,
    PipelineState,
    PlayPipeline,
    Pong,
    Redirect,
    RemovePipeline,
    ReqFullStats,
    RoutePipeline,
    Stats,
    StopPipeline,
    StreamStats,
)
from anabranch.tree.soleil.repair import STATISTICS

VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "&<>\"'")
IDENTIFIERS = st.text(VISIBLE, min_size=1, max_size=128)
NAMES = IDENTIFIERS.filter(lambda name: name not in (ROOT, EVERYBODY))
FIGURES = IDENTIFIERS.filter(lambda name: name not in STATISTICS)
# what XML 1.0 carries
TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r\x7f\x85<>&\"']"),
    max_size=200,
)
WHOLE = st.integers(0, 10**15 - 1)
SECONDS = st.integers(0, 10**14 - 1).map(lambda ms: ms / 1000)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ENDPOINTS = st.builds(
    Endpoint,
    st.sampled_from(["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "node-1.example", "A_b"]),
    st.integers(1, 65535),
)
SEVERAL = st.lists(ENDPOINTS, max_size=4).map(tuple)
ROLES = st.sampled_from(Role)


def _unique(descendants: list[Descendant]) -> tuple[Descendant, ...]:
    return tuple({each.name: each for each in descendants}.values())


DESCENDANTS = st.lists(st.builds(Descendant, NAMES, ROLES, NAMES), max_size=6).map(_unique)
CONTAINERS = st.lists(
    st.builds(
        StreamStats,
        IDENTIFIERS,
        SECONDS,
        SECONDS,
        WHOLE,
        st.dictionaries(FIGURES, NUMBERS, max_size=5),
        st.none() | NUMBERS.map(abs),
        st.none() | NAMES,
    ),
    max_size=4,
).map(tuple)
BODIES: st.SearchStrategy[Body] = st.one_of(
    st.builds(
        Hello,
        NAMES,
        ROLES,
        st.none() | ENDPOINTS,
        st.none() | ENDPOINTS,
        st.lists(IDENTIFIERS, max_size=4).map(tuple),
        st.none() | IDENTIFIERS,
        st.none() | IDENTIFIERS,
        st.none() | TEXTS,
        st.none() | TEXTS,
        st.dictionaries(IDENTIFIERS, TEXTS, max_size=4),
    ),
    st.builds(Bye, TEXTS),
    st.builds(ChildsUpdate, WHOLE, DESCENDANTS),
    st.builds(
        Error, st.sampled_from(Fault), TEXTS, st.none() | IDENTIFIERS, st.none() | IDENTIFIERS
    ),
    st.builds(Kill, TEXTS),
    st.builds(Ping, st.just("") | IDENTIFIERS),
    st.builds(Pong, st.just("") | IDENTIFIERS),
    st.builds(Redirect, NAMES, SEVERAL, TEXTS),
    st.builds(PipeDef, IDENTIFIERS, TEXTS),
    st.builds(
        PipeDefInfo,
        IDENTIFIERS,
        st.sampled_from(PipelineState),
        TEXTS,
        st.dictionaries(IDENTIFIERS, SEVERAL, max_size=3),
        st.none() | TEXTS,
        WHOLE,
    ),
    st.builds(PlayPipeline, IDENTIFIERS),
    st.builds(StopPipeline, IDENTIFIERS),
    st.builds(RemovePipeline, IDENTIFIERS),
    st.builds(RoutePipeline, IDENTIFIERS, IDENTIFIERS, SEVERAL),
    st.builds(Stats, CONTAINERS, st.none() | WHOLE),
    st.builds(ReqFullStats, st.none() | IDENTIFIERS),
    st.builds(FullStats, CONTAINERS, st.none() | IDENTIFIERS, st.none() | SECONDS),
)


def _message(
    body: Body, time: int, to: str | None, sender: str | None, drawn: str | None
) -> Message:
    in_seconds = time < 10**11
    return Message(body, time * 1000 if in_seconds else time, to, sender, drawn, in_seconds)


MESSAGES = st.builds(
    _message,
    BODIES,
    st.integers(0, 10**14 - 1),
    st.none() | st.just(ROOT) | st.just(EVERYBODY) | NAMES,
    st.none() | NAMES,
    st.none() | IDENTIFIERS,
) | st.builds(lambda body: Message(body, 5, "leaf", ROOT), BODIES)
