"""``anabranch fabric path`` and ``vm-path``: what an operator asks for."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from anabranch.app.fabric_commands.showing import ask, show, show_json
from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.errors import UsageError
from anabranch.core.names import check_name

app = typer.Typer()
path_app = typer.Typer(no_args_is_help=True, help="Ask for paths of your own.")
vm_path_app = typer.Typer(no_args_is_help=True, help="Ask for paths past virtual machines.")
app.add_typer(path_app, name="path")
app.add_typer(vm_path_app, name="vm-path")

_FIELD = re.compile(r"([a-z0-9_]+)=(\S+)")


@app.command("paths")
@command
def paths(as_json: JsonFlag = False) -> None:
    """Show every flow and the links it takes."""
    answer = ask("GET", "/paths?limit=5000")["items"]
    rows = [
        (
            path["name"],
            path["ingress"],
            " ".join(sorted({egress["at"] for egress in path["egresses"]})),
            _links(path),
            _troubles(path),
        )
        for path in answer
    ]
    show(answer, rows, ("Flow", "From", "To", "Links", ""), as_json)


@path_app.command("add")
@command
def add(
    name: Annotated[str, typer.Argument(help="a-z, 0-9 and '-'.")],
    ingress: Annotated[str, typer.Option("--from", help="SWITCH:PORT where packets enter.")],
    egress: Annotated[
        list[str],
        typer.Option(
            "--to",
            help="SWITCH:PORT, and what is rewritten there:"
            " s3:1,ipv4_dst=192.168.1.181,udp_dst=5004; may be repeated.",
        ),
    ],
    match: Annotated[
        list[str],
        typer.Option("--match", help="FIELD=VALUE, as ipv4_dst=239.1.2.3; may be repeated."),
    ],
    through: Annotated[
        list[str] | None,
        typer.Option(help="SWITCH:PORT of a service on the way, or two: out,back; in this order."),
    ] = None,
    policy: Annotated[str, typer.Option(help="shortest or widest.")] = "shortest",
    priority: Annotated[int, typer.Option(help="1 to 1000; higher wins.")] = 100,
    rate_kbps: Annotated[
        int | None, typer.Option(help="What more enters is dropped; none: no limit.")
    ] = None,
    protected: Annotated[
        bool, typer.Option(help="Let switches fail over by themselves, or not.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Carry what matches from one port to others, one copy per link."""
    wanted = {
        "name": name,
        "ingress": ingress,
        "egresses": list(map(_egress, egress)),
        "match": dict(map(_field, match)),
        "through": list(map(_service, through or ())),
        "policy": policy,
        "priority": priority,
        "rate_kbps": rate_kbps,
        "protected": protected,
    }
    answer = ask("POST", "/paths", json=wanted)
    if as_json:
        show_json(answer)
        return
    _print_carried(name, answer["path"])


def _print_carried(name: str, path: dict[str, Any]) -> None:
    if not path["unreachable"] or path["links"]:
        out.print(f"{name} is carried: {_links(path) or 'within one switch'}", soft_wrap=True)
    for at in path["unreachable"]:
        out.print(f"[yellow]There is no way to {escape(at)} now.[/yellow]")


def _troubles(path: dict[str, Any]) -> str:
    words = [f"unreachable: {' '.join(path['unreachable'])}"] if path["unreachable"] else []
    return "; ".join(words + [f"refused: {each['reason']}" for each in path["refused"]])


def _egress(text: str) -> dict[str, int | str]:
    at, *rewritten = text.split(",")
    return {"at": at, **dict(map(_field, rewritten))}


def _service(text: str) -> dict[str, str]:
    out_of, _, back = text.partition(",")
    return {"to": out_of, "back": back or out_of}


def _links(path: dict[str, Any]) -> str:
    return " ".join(f"{hop['src']}>{hop['dst']}" for hop in path["links"])


def _field(text: str) -> tuple[str, int | str]:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is not FIELD=VALUE")
    value = found[2]
    try:
        return found[1], int(value, 0)
    except ValueError:
        return found[1], value


@path_app.command("remove")
@command
def remove(name: str) -> None:
    """Take a path of your own back."""
    _remove("paths", name)


def _remove(what: str, name: str) -> None:
    ask("DELETE", f"/{what}/{check_name(name)}")
    out.print(f"{name} is gone.")


@vm_path_app.command("add")
@command
def add_vm_path(
    name: Annotated[str, typer.Argument(help="a-z, 0-9 and '-'.")],
    ingress: Annotated[str, typer.Option("--from", help="SWITCH:PORT of the root's VM.")],
    leaf_exit: Annotated[
        str, typer.Option("--to", help="SWITCH:PORT of the leaf, towards the physical network.")
    ],
    external: Annotated[str, typer.Option(help="IPv4 address that the leaf puts in.")],
    external_mac: Annotated[
        str | None, typer.Option(help="Its MAC address; none: the stream's is left.")
    ] = None,
    match: Annotated[
        list[str] | None, typer.Option("--match", help="FIELD=VALUE; may be repeated.")
    ] = None,
    extend_match: Annotated[
        Path | None, typer.Option(help="A file of vpm-extend-match, in place of --match.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="SWITCH=root, relay or leaf.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Carry what matches through every virtual machine on its way, whichever come and go."""
    from anabranch.app.controller_file import read_extend_match

    wanted: dict[str, Any] = {
        "name": name,
        "ingress": ingress,
        "exit": leaf_exit,
        "external": external,
        "external_mac": external_mac,
        "match": dict(map(_field, match)) if match else None,
        "extend_match": read_extend_match(extend_match) if extend_match is not None else None,
        "roles": dict(map(_role, role or ())),
    }
    answer = ask("POST", "/vm-paths", json=wanted)
    if as_json:
        show_json(answer)
        return
    _print_carried(name, answer["path"])
    for rule in answer["path"]["rules"]:
        out.print(f"  {rule['name']}", soft_wrap=True)


def _role(text: str) -> tuple[str, str]:
    switch, equals, role = text.partition("=")
    if not (switch and equals and role):
        raise UsageError(f"{text!r} is not SWITCH=ROLE")
    return switch, role


@vm_path_app.command("list")
@command
def list_vm_paths(as_json: JsonFlag = False) -> None:
    """Show the paths past virtual machines with their rules."""
    answer = ask("GET", "/vm-paths?limit=5000")["items"]
    rows = [
        (
            path["name"],
            path["ingress"],
            path["exit"],
            path["external"],
            " ".join(rule["name"] for rule in path["rules"]),
        )
        for path in answer
    ]
    show(answer, rows, ("Path", "From", "To", "External", "Rules"), as_json)


@vm_path_app.command("remove")
@command
def remove_vm_path(name: str) -> None:
    """Take a path past virtual machines back."""
    _remove("vm-paths", name)
