"""The root's side of pipelines: answers find their command, and what nodes tell is all it knows."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import (
    AnabranchError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from anabranch.core.events import Event
from anabranch.site.carriage import Route
from anabranch.site.pipelines import Pipelines
from anabranch.tree.events import Deliver, Introduced, Left
from anabranch.tree.model import Role
from anabranch.tree.pipelines.handler import Command
from anabranch.tree.soleil.codec import type_of
from anabranch.tree.soleil.messages import (
    ROOT,
    Body,
    Endpoint,
    Error,
    Fault,
    Hello,
    Message,
    PipeDef,
    PipeDefInfo,
    PipelineState,
    PlayPipeline,
    RemovePipeline,
)

TO = Endpoint("10.98.0.3", 5004)
SOUND = PipeDefInfo("sound", PipelineState.PLAYING, "what it is", {"out": (TO,)})


class Root:
    """The root's side, and what it has sent."""

    def __init__(self, patience_s: float = 60.0) -> None:
        self.sent: list[tuple[Command, str, int]] = []
        self.events: list[Event] = []
        self.away: set[str] = set()
        self.rerouted = 0
        self.pipelines = Pipelines(
            "root", lambda: {"root", "relay"}, self._send, self.events.append, patience_s=patience_s
        )
        self.pipelines.on_routes = self._routed

    def _send(self, command: Command, node: str, time_ms: int) -> None:
        if node in self.away:
            raise UnavailableError(f"there is no way to {node}")
        self.sent.append((command, node, time_ms))

    def _routed(self) -> None:
        self.rerouted += 1

    def hear(self, body: Body, time_ms: int = 1, sender: str = "relay") -> None:
        self.pipelines.happened(Deliver(Message(body, time_ms, sender=sender), "relay"))

    async def asked(self, command: Command, node: str = "relay") -> "asyncio.Task[PipeDefInfo]":
        task = asyncio.create_task(self.pipelines.command(node, command))
        await asyncio.sleep(0)
        return task


async def test_an_answer_is_known_by_the_time_of_its_command() -> None:
    root = Root()
    one = await root.asked(PlayPipeline("sound"))
    other = await root.asked(PlayPipeline("sound"))
    times = [time_ms for _, _, time_ms in root.sent]
    assert len(set(times)) == 2
    root.hear(SOUND, times[1] + 5)  # news, no answer
    root.hear(PipeDefInfo("picture", PipelineState.PLAYING, "another"), times[0])
    root.hear(SOUND, times[0], sender="root")
    await asyncio.sleep(0)
    assert not one.done()
    assert not other.done()
    root.hear(SOUND, times[1])
    root.hear(SOUND, times[1])
    assert await other == SOUND
    assert not one.done()
    root.hear(SOUND, times[0])
    assert await one == SOUND


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.FORBIDDEN, UsageError),
        (Fault.MALFORMED, UsageError),
        (Fault.TOO_LARGE, UsageError),
        (Fault.NOT_FOUND, NotFoundError),
        (Fault.CONFLICT, ConflictError),
        (Fault.FAILED, UnavailableError),
    ],
)
async def test_a_nodes_refusal_is_an_error_with_its_words(
    fault: Fault, kind: type[AnabranchError]
) -> None:
    root = Root()
    command = PipeDef("sound", "filesrc")
    task = await root.asked(command)
    ((_, _, time_ms),) = root.sent
    root.hear(Error(fault, "of something else", "kill"), time_ms)
    root.hear(Error(fault, "no element filesrc", type_of(command)), time_ms)
    with pytest.raises(AnabranchError, match="no element filesrc") as caught:
        await task
    assert type(caught.value) is kind


async def test_a_node_that_is_unknown_away_or_silent() -> None:
    root = Root(patience_s=0.01)
    with pytest.raises(NotFoundError, match="'nowhere'"):
        await root.pipelines.command("nowhere", PlayPipeline("x"))
    with pytest.raises(NotFoundError, match="'nowhere'"):
        root.pipelines.of("nowhere")
    with pytest.raises(UnavailableError, match="not answered"):
        await root.pipelines.command("relay", PlayPipeline("x"))
    ((_, _, late),) = root.sent
    root.hear(PipeDefInfo("x", PipelineState.PLAYING, "d"), late)
    assert [each.pipeline for each in root.pipelines.of("relay")] == ["x"]
    root.away.add("relay")
    with pytest.raises(UnavailableError, match="no way"):
        await root.pipelines.command("relay", PlayPipeline("x"))


async def test_the_root_itself_has_pipelines() -> None:
    root = Root()
    task = await root.asked(PlayPipeline("sound"), "root")
    ((_, _, time_ms),) = root.sent
    root.hear(SOUND, time_ms, sender=ROOT)
    assert await task == SOUND
    assert root.pipelines.of("root") == [SOUND]


async def test_what_is_removed_or_gone_is_forgotten_with_its_routes() -> None:
    root = Root()
    root.hear(SOUND)
    assert root.pipelines.routes() == {Route("relay", ("10.98.0.3", 5004))}
    assert [(event.kind, event.subject) for event in root.events] == [("pipeline.changed", "relay")]
    root.hear(SOUND)
    assert len(root.events) == 1, "nothing has changed"
    task = await root.asked(RemovePipeline("sound"))
    root.hear(PipeDefInfo("sound", PipelineState.STOPPED), root.sent[-1][2])
    await task
    assert root.pipelines.of("relay") == []
    assert root.pipelines.routes() == frozenset()
    for end in (
        Introduced("relay", Hello("relay", Role.RELAY, pipelines=("other",))),
        Left("relay", "it said goodbye"),
    ):
        root.hear(SOUND)
        before = root.rerouted
        root.pipelines.happened(end)
        assert root.rerouted > before
        assert root.pipelines.of("relay") == []
    root.hear(SOUND)
    root.pipelines.happened(Introduced("relay", Hello("relay", Role.RELAY, pipelines=("sound",))))
    assert root.pipelines.of("relay") == [SOUND]


@given(
    st.lists(
        st.builds(
            PipeDefInfo,
            st.sampled_from(["a", "b"]),
            st.sampled_from(PipelineState),
            st.sampled_from(["", "d"]),
        )
    )
)
def test_the_last_word_on_each_pipeline_counts(told: list[PipeDefInfo]) -> None:
    root = Root()
    for info in told:
        root.hear(info)
    last = {info.pipeline: info for info in told}
    assert root.pipelines.of("relay") == [
        last[name] for name in sorted(last) if last[name].description
    ]
