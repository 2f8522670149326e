"""The control socket of a service node: whatever is asked is answered."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.controller.controller import Controller
from anabranch.services.controller.modules import Module
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.node.control import NodeControl, controlled
from anabranch.services.node.control_client import ControlError, ask

JANE = User(name="jane", public_key=PrivateKey.generate().public)


class Runtime:
    """Remembers what was removed."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.capabilities = {"plane": "none"}
        self.building_blocks = {"python": "3"}

    async def status(self, user: User, name: str) -> Mapping[str, str]:
        return {"state": "running", "packets": "7"}

    async def remove(self, user: User, name: str) -> None:
        self.removed.append(name)


def made(tmp_path: Path) -> tuple[NodeControl, Runtime, list]:
    runtime, let_go = Runtime(), []
    controller = Controller(
        "node", {}, runtime, None, None,
        clock=lambda: 0.0, wall_clock=lambda: 0.0, address_towards=lambda address: address,
    )  # fmt: skip
    controller.modules.put(Module(JANE, "M_1", b"", None, {}, b"session", b"", 1e12))
    relay = SimpleNamespace(let_go=lambda *what: let_go.append(what))
    node = SimpleNamespace(controller=controller, sessions=3, relay=relay)
    (tmp_path / "jane").write_text("".join(f"{number}\n" for number in range(9)))
    return NodeControl(node, runtime, lambda: 5, lambda user: tmp_path / user), runtime, let_go


async def test_what_an_operator_asks(tmp_path: Path) -> None:
    control, runtime, let_go = made(tmp_path)
    path = tmp_path / "control.sock"
    async with controlled(control, path):
        assert path.stat().st_mode & 0o777 == 0o600
        status = await ask(path, "status")
        assert (status["node_id"], status["sessions"]) == ("node", 3)
        (module,) = status["modules"]
        assert (module["user"], module["name"], module["state"]) == ("jane", "M_1", "running")
        assert module["figures"] == {"packets": "7"}
        assert (await ask(path, "log", user="jane", lines=2))["lines"] == ["7", "8"]
        assert (await ask(path, "log", user="nobody"))["lines"] == []
        assert await ask(path, "reload") == {"users": 5}
        with pytest.raises(ControlError, match="jane has no module M_2"):
            await ask(path, "remove", user="jane", module="M_2")
        assert await ask(path, "remove", user="jane", module="M_1") == {}
        assert runtime.removed == ["M_1"]
        assert let_go[0][:3] == (b"session", "jane", "M_1")
        assert (await ask(path, "status"))["modules"] == []
    with pytest.raises(ControlError, match="does not answer"):
        await ask(path, "status")


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["do", "user", "module", "lines"]), inner, max_size=4),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
async def test_any_line_has_an_answer(
    tmp_path_factory: pytest.TempPathFactory, line: bytes
) -> None:
    control, runtime, _ = made(tmp_path_factory.getbasetemp())
    answer = await control.answer(line)
    assert "error" in answer
    assert not runtime.removed


@pytest.mark.parametrize("what", ["status", "log", "remove", "reload"])
async def test_questions_with_odd_parts(tmp_path: Path, what: str) -> None:
    control, _, _ = made(tmp_path)
    for user in (7, None, [], "../../etc/passwd", "\0"):
        line = json.dumps({"do": what, "user": user, "module": user, "lines": user}).encode()
        answer = await control.answer(line)
        assert isinstance(answer, dict)
