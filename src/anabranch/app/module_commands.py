"""``anabranch module new|pack|sign|test|logs``: to write a module, without any network."""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.errors import UsageError
from anabranch.services.archive import SUFFIX, Archive, pack
from anabranch.services.errors import ArchiveError
from anabranch.services.keys import PrivateKey
from anabranch.services.testkit import TestKit, read_capture, write_capture

_MANIFEST = """\
name = "{name}"
version = "1.0.0"
entry = "{file}:{cls}"
description = ""
# What must be on the node, such as "numpy>=2".
dependencies = ["numpy>=2"]

# Packets that the module wants; whoever installs it says to which addresses.
[[filters]]
protocol = "udp"
port = 5060

# What it needs at least.
[resources]
memory_mb = 16
disk_mb = 0
# ports = [80]    # to listen on, at the sandbox's own address
"""
_CODE = '''\
"""Counts packets by their TTL, and drops those that are about to expire."""

import numpy as np

from anabranch.services.batch import Batch
from anabranch.services.module import Context, Module, Status


class {cls}(Module):
    def configure(self, context: Context) -> None:
        self.lowest = int(context.properties.get("lowest", "1"))
        self.counts = np.zeros(256, np.int64)

    def process(self, batch: Batch) -> None:
        self.counts += np.bincount(batch.ttl, minlength=256)
        batch.drop(batch.ttl < self.lowest)

    def status(self) -> Status:
        return {{f"ttl.{{ttl}}": int(self.counts[ttl]) for ttl in np.flatnonzero(self.counts)}}

    def take_state(self) -> bytes:
        return self.counts.tobytes()

    def restore_state(self, state: bytes) -> None:
        self.counts = np.frombuffer(state, np.int64).copy()
'''
_POLL_S = 0.5

Directory = Annotated[Path, typer.Argument(help="The module's directory, with module.toml.")]
ArchiveFile = Annotated[Path, typer.Argument(metavar=f"FILE{SUFFIX}", help="An archive.")]
StateDirectory = Annotated[Path, typer.Option("--state", help="The node's directory of tenants.")]


def add_module_commands(app: typer.Typer) -> None:
    """Add the commands to ``anabranch module``."""
    app.command("new")(new)
    app.command("pack")(pack_directory)
    app.command("sign")(sign)
    app.command("test")(try_out)
    app.command("logs")(logs)


@command
def new(directory: Annotated[Path, typer.Argument(help="To be made; its name is the module's.")]
        ) -> None:  # fmt: skip
    """Begin a module: a directory with a manifest and a class that works."""
    words = [word for word in directory.name.replace("-", "_").split("_") if word]
    file = "_".join(words).lower()
    name = "".join(word[:1].upper() + word[1:] for word in words)
    if not name.isascii() or not name.isidentifier():
        raise UsageError(f"{directory.name!r} makes no name of a class: letters, digits and _")
    try:
        directory.mkdir(parents=True)
        (directory / "module.toml").write_text(_MANIFEST.format(name=name, file=file, cls=name))
        (directory / f"{file}.py").write_text(_CODE.format(cls=name))
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    out.print(f"{escape(str(directory))}: edit {file}.py, then")
    out.print(f"  anabranch module test {escape(str(directory))} SOME.pcap", soft_wrap=True)


@command
def pack_directory(
    directory: Directory,
    to: Annotated[Path | None, typer.Option("-o", "--to", help="The file to write.")] = None,
) -> None:
    """Pack a module's directory into one archive, not yet signed."""
    archive = pack(directory)
    path = to or Path(f"{archive.manifest().identity}{SUFFIX}")
    _write(path, archive)
    out.print(f"{escape(str(path))}: {len(bytes(archive))} bytes, not signed", soft_wrap=True)


@command
def sign(
    file: ArchiveFile,
    user: Annotated[
        str, typer.Option("--user", envvar="ANABRANCH_MODULE_USER", help="As the nodes know you.")
    ],
    key: Annotated[
        Path,
        typer.Option("--key", envvar="ANABRANCH_MODULE_KEY", help="Your private key; see --make."),
    ],
    make: Annotated[
        bool, typer.Option("--make", help="Make the key first, and print its public half.")
    ] = False,
) -> None:
    """Sign an archive, in place."""
    if make:
        made = PrivateKey.generate()
        made.store(key)
        out.print("The public key, for the operators of nodes:", soft_wrap=True)
        out.print(str(made.public), soft_wrap=True)
    try:
        archive = Archive.parse(file.read_bytes())
    except OSError as error:
        raise ArchiveError(f"{file}: {error.strerror}") from error
    identity = archive.manifest().identity
    _write(file, archive.sign(user, PrivateKey.load(key)))
    out.print(f"{escape(str(file))}: {identity}, signed by {escape(user)}", soft_wrap=True)


@command
def try_out(
    directory: Directory,
    capture: Annotated[Path, typer.Argument(help="pcap or pcapng.")],
    write: Annotated[
        Path | None, typer.Option("-w", "--write", help="Write what goes out to this pcap.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Packets at a time.")] = 256,
    properties: Annotated[
        list[str] | None, typer.Option("--property", "-p", metavar="NAME=VALUE")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a module on a capture, without any network."""
    pairs = dict(each.partition("=")[::2] for each in properties or ())
    try:
        kit = TestKit.of_directory(directory, properties=pairs)
    except (ValueError, SyntaxError, ImportError, AttributeError) as error:
        raise UsageError(f"the module cannot be loaded: {type(error).__name__}: {error}") from error
    try:
        report = kit.run(read_capture(capture), batch=batch)
    finally:
        kit.close()
    if write is not None:
        write_capture(write, report.out)
    figures = {
        name: getattr(report, name)
        for name in ("given", "passed", "forwarded", "replied", "dropped", "emitted")
    }
    if as_json:
        said = {**figures, "ns_per_packet": round(report.ns_per_packet),
                "errors": report.errors, "status": dict(report.status)}  # fmt: skip
        out.print_json(json.dumps(said))
    else:
        out.print("  ".join(f"{name} {value}" for name, value in figures.items()))
        out.print(f"{report.ns_per_packet:.0f} ns a packet, in batches of up to {batch}")
        for name, value in report.status.items():
            out.print(f"  {escape(str(name))}: {escape(str(value))}")
        for error_text in report.errors[:5]:
            out.print(f"[red]{escape(error_text)}[/red]")
    if report.errors:
        raise typer.Exit(1)


@command
def logs(
    user: Annotated[str, typer.Argument(help="Whose sandbox.")],
    state: StateDirectory = Path("/var/lib/anabranch/tenants"),
    lines: Annotated[int, typer.Option("-n", min=0, help="Of the last lines, so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what a tenant's modules have printed, on the node itself."""
    from anabranch.services.tenancy import home_of

    path = home_of(state, user).log
    try:
        with path.open(errors="replace") as file:
            for line in file.readlines()[-lines:] if lines else ():
                out.print(line.rstrip("\n"), markup=False, soft_wrap=True)
            while follow:
                line = file.readline()
                if line:
                    out.print(line.rstrip("\n"), markup=False, soft_wrap=True)
                    continue
                if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                    break  # it was begun anew
                time.sleep(_POLL_S)
    except FileNotFoundError:
        raise UsageError(f"there is no log of {user} in {state}") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except KeyboardInterrupt:
        return


def _write(path: Path, archive: Archive) -> None:
    try:
        path.write_bytes(bytes(archive))
    except OSError as error:
        raise ArchiveError(f"{path}: {error.strerror}") from error
