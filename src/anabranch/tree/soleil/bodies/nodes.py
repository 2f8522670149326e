"""Bodies of the messages that manage nodes: HELLO to REDIRECT.

``info`` is the seed's to the letter; what we add stands in ``node`` beside it.
"""

from typing import Any
from xml.etree.ElementTree import Element

from anabranch.tree.model import Role
from anabranch.tree.soleil.bodies.format import Format
from anabranch.tree.soleil.document import escape
from anabranch.tree.soleil.errors import CodecError
from anabranch.tree.soleil.fields import (
    MAX_PROSE,
    children,
    choice,
    endpoint,
    endpoints,
    identifier,
    limited,
    needed,
    node_name,
    optional,
    prose,
    text_of,
    token,
    whole,
    write_endpoint,
    write_endpoints,
    write_optional,
    write_prose,
    write_text,
    write_whole,
)
from anabranch.tree.soleil.messages import (
    Bye,
    ChildsUpdate,
    Descendant,
    Endpoint,
    Error,
    Fault,
    Hello,
    Kill,
    Ping,
    Pong,
    Redirect,
)

MAX_PIPELINES = 1024
MAX_FEATURES = 64


def _read_hello(found: dict[str, Element]) -> Hello:
    info = children(needed(found, "info"))
    listed = info.get("pipelines")
    pipelines = () if listed is None else limited(listed.findall("pipeid"), MAX_PIPELINES)
    server = _optional_endpoint(info.get("minaServerAddress"))
    node = found.get("node", Element("node"))
    inside = children(node)
    role = node.get("role")
    features = limited(node.findall("feature"), MAX_FEATURES)
    named = {identifier(each.get("name"), "feature"): text_of(each, MAX_PROSE) for each in features}
    if len(named) != len(features):
        raise CodecError("a feature occurs twice")
    return Hello(
        node_name(needed(info, "name").text, "name"),
        _role_by_address(server) if role is None else choice(Role, role, "role"),
        server,
        _optional_endpoint(info.get("minaClientAddress")),
        tuple(identifier(each.text, "pipeid") for each in pipelines),
        optional(node.get("boot"), "boot"),
        token(node.get("token")),
        text_of(inside["request"]) if "request" in inside else None,
        text_of(inside["certificate"]) if "certificate" in inside else None,
        named,
    )


def _optional_endpoint(element: Element | None) -> Endpoint | None:
    return None if element is None else endpoint(element)


def _role_by_address(server: Endpoint | None) -> Role:
    """Return the role of a node of the seed's, which tells none: who takes children in relays."""
    return Role.LEAF if server is None else Role.RELAY


def _write_hello(hello: Hello) -> str:
    if len(hello.pipelines) > MAX_PIPELINES or len(hello.features) > MAX_FEATURES:
        raise CodecError("too many pipelines or features", Fault.TOO_LARGE)
    server = "" if hello.server is None else write_endpoint("minaServerAddress", hello.server)
    client = "" if hello.client is None else write_endpoint("minaClientAddress", hello.client)
    listed = "".join(f"<pipeid>{identifier(p, 'pipeid')}</pipeid>" for p in hello.pipelines)
    pipelines = f"<pipelines>{listed}</pipelines>" if listed else "<pipelines/>"
    boot = write_optional("boot", hello.boot)
    proof = "" if hello.token is None else f' token="{token(hello.token)}"'
    inside = "".join(_write_feature(name, value) for name, value in hello.features.items())
    inside += write_text("request", hello.request) + write_text("certificate", hello.certificate)
    return (
        f"<info><name>{node_name(hello.name, 'name')}</name>{server}{client}{pipelines}</info>"
        f'<node role="{hello.role}"{boot}{proof}'
    ) + (f">{inside}</node>" if inside else "/>")


def _write_feature(name: str, value: str) -> str:
    if len(value) > MAX_PROSE:
        raise CodecError("the value of a feature is too long", Fault.TOO_LARGE)
    return f'<feature name="{identifier(name, "feature")}">{escape(value)}</feature>'


def _read_bye(found: dict[str, Element]) -> Bye:
    return Bye(text_of(found.get("reason"), MAX_PROSE))


def _read_kill(found: dict[str, Element]) -> Kill:
    return Kill(text_of(found.get("reason"), MAX_PROSE))


def _write_reason(body: Bye | Kill) -> str:
    return write_prose("reason", body.reason)


def _read_childs_update(found: dict[str, Element]) -> ChildsUpdate:
    listed = needed(found, "children")
    below = tuple(
        Descendant(
            node_name(child.get("name"), "name"),
            choice(Role, child.get("role"), "role"),
            node_name(child.get("parent"), "parent"),
        )
        for child in listed.findall("child")
    )
    if len({each.name for each in below}) != len(below):
        raise CodecError("a descendant occurs twice")
    return ChildsUpdate(whole(listed.get("number"), "number"), below)


def _write_childs_update(update: ChildsUpdate) -> str:
    if len({each.name for each in update.descendants}) != len(update.descendants):
        raise CodecError("a descendant occurs twice")
    below = "".join(
        f'<child name="{node_name(each.name, "name")}" role="{each.role}"'
        f' parent="{node_name(each.parent, "parent")}"/>'
        for each in update.descendants
    )
    return f'<children number="{write_whole(update.number, "number")}">{below}</children>'


def _read_error(found: dict[str, Element]) -> Error:
    """Read with indulgence: an ERROR is never answered by one."""
    error = found.get("error")
    if error is None:
        return Error(Fault.FAILED)
    try:
        fault = choice(Fault, error.get("fault"), "fault")
    except CodecError:
        fault = Fault.FAILED
    return Error(
        fault,
        text_of(error, MAX_PROSE),
        optional(error.get("regarding"), "regarding"),
        optional(error.get("answers"), "answers"),
    )


def _write_error(error: Error) -> str:
    of = write_optional("regarding", error.regarding) + write_optional("answers", error.answers)
    return f'<error fault="{error.fault}"{of}>{prose(error.text)}</error>'


def _nonce(found: dict[str, Element]) -> str:
    element = found.get("nonce")
    return "" if element is None else identifier(element.text, "nonce")


def _write_nonce(body: Ping | Pong) -> str:
    return f"<nonce>{identifier(body.nonce, 'nonce')}</nonce>" if body.nonce else ""


def _read_redirect(found: dict[str, Element]) -> Redirect:
    redirect = needed(found, "redirect")
    at = endpoints(redirect)
    reason = text_of(found.get("reason"), MAX_PROSE)
    return Redirect(node_name(redirect.get("parent"), "parent"), at, reason)


def _write_redirect(redirect: Redirect) -> str:
    parent, at = node_name(redirect.parent, "parent"), write_endpoints(redirect.at)
    return f'<redirect parent="{parent}">{at}</redirect>' + write_prose("reason", redirect.reason)


FORMATS: dict[str, Format[Any]] = {
    "hello": Format(Hello, _read_hello, _write_hello),
    "bye": Format(Bye, _read_bye, _write_reason),
    "childsupdate": Format(ChildsUpdate, _read_childs_update, _write_childs_update),
    "error": Format(Error, _read_error, _write_error),
    "kill": Format(Kill, _read_kill, _write_reason),
    "ping": Format(Ping, lambda found: Ping(_nonce(found)), _write_nonce),
    "pong": Format(Pong, lambda found: Pong(_nonce(found)), _write_nonce),
    "redirect": Format(Redirect, _read_redirect, _write_redirect),
}
