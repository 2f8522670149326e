"""Entry of the encoder process: commands on standard input, events on standard output.

Usage: ``python3 <this directory> --config FILE``. Every line in and out is one JSON object; see
:mod:`anabranch.media.encoder`, which writes the configuration and speaks the other side. The end
of standard input does not stop it, SIGTERM does.
"""

import argparse
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

if TYPE_CHECKING:
    from anabranch.media.encoder_worker.pipeline import Encoder
else:
    from pipeline import Encoder


def emit(event: str, **data: Any) -> None:
    """Print one event; with nobody to read it, it is lost and the stream goes on."""
    line = json.dumps({"event": event, **data}) + "\n"
    with suppress(OSError):
        os.write(1, line.encode())


class Commands:
    """Cuts standard input into lines and carries them out."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._rest = b""

    def on_input(self, fd: int, _condition: Any) -> bool:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            return False  # the director is gone: the stream goes on without it
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self.obey(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                emit("error", detail=f"command not understood: {error!r}")
        return True

    def obey(self, command: dict[str, Any]) -> None:
        match command["cmd"]:
            case "keyframe":
                self._encoder.keyframe(command.get("stream"))
            case "targets":
                self._encoder.targets(command["stream"], command["targets"])
            case "tell":
                self._encoder.tell()
            case "stats":
                emit("stats", **self._encoder.stats())
            case other:
                raise ValueError(f"unknown command {other!r}")


def listen(path: Path, kind: socket.SocketKind) -> socket.socket:
    """Return a listening Unix socket at ``path``, in place of what was there."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, kind)
    server.bind(str(path))
    path.chmod(0o600)
    server.listen(4)
    server.setblocking(False)
    return server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, required=True)
    config = json.loads(parser.parse_args().config.read_text())
    Gst.init(None)
    loop = GLib.MainLoop()
    status = 0

    def fail(detail: str) -> None:
        nonlocal status
        status = 1
        emit("error", detail=detail, fatal=True)
        loop.quit()

    def on_connection(_fd: int, _condition: Any) -> bool:
        with suppress(OSError):
            connection, _ = server.accept()
            connection.setblocking(True)
            encoder.take_feed(connection.detach())
        return True

    def on_relays(_fd: int, _condition: Any) -> bool:
        with suppress(OSError):
            connection, _ = relays.accept()
            encoder.take_relays(connection)
        return True

    for fd in (0, 1):
        with suppress(OSError):
            os.set_blocking(fd, False)
    encoder = Encoder(config, emit, fail)
    server = listen(Path(config["socket"]), socket.SOCK_STREAM)
    relays = listen(Path(config["relay_socket"]), socket.SOCK_SEQPACKET)
    for listener, accept in ((server, on_connection), (relays, on_relays)):
        GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, listener.fileno(), GLib.IOCondition.IN, accept)
    GLib.unix_fd_add_full(
        GLib.PRIORITY_DEFAULT, 0, GLib.IOCondition.IN | GLib.IOCondition.HUP,
        Commands(encoder).on_input,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, number, loop.quit)
    encoder.start()
    if status == 0:
        loop.run()
    encoder.stop()
    for listener, name in ((server, "socket"), (relays, "relay_socket")):
        listener.close()
        Path(config[name]).unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
