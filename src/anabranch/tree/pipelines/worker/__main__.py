"""Entry of a pipeline's process: commands on standard input, events on standard output.

Every line is one JSON object; :mod:`anabranch.tree.pipelines.run` speaks the other side. It ends
with SIGTERM and with its standard input: a pipeline that nobody controls must not go on sending.
"""

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gio, GLib, Gst  # noqa: E402

if TYPE_CHECKING:
    from anabranch.tree.pipelines.worker.confinement import confine
    from anabranch.tree.pipelines.worker.pipeline import Pipeline
else:
    from confinement import confine
    from pipeline import Pipeline

_STATS_S = 1


class Worker:
    """Obeys commands until told to end."""

    def __init__(self) -> None:
        self._loop = GLib.MainLoop()
        self._input = Gio.DataInputStream.new(Gio.UnixInputStream.new(0, False))
        self._pipeline: Pipeline | None = None
        self._status = 0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            GLib.unix_signal_add(GLib.PRIORITY_HIGH, number, self._loop.quit)
        self._read()
        self._loop.run()
        if self._pipeline is not None:
            self._pipeline.stop()
        return self._status

    def _read(self) -> None:
        self._input.read_line_async(GLib.PRIORITY_DEFAULT, None, self._on_line)

    def _on_line(self, stream: Any, result: Any) -> None:
        try:
            line, _ = stream.read_line_finish_utf8(result)
        except GLib.Error:
            line = None
        if line is None:
            self._loop.quit()
            return
        self._obey(json.loads(line))
        self._read()

    def _obey(self, command: dict[str, Any]) -> None:
        match command["cmd"]:
            case "play":
                try:
                    self._pipeline = Pipeline(command, self._on_playing, self._fail)
                    self._pipeline.start()
                except RuntimeError as error:
                    self._fail(str(error))
            case "route" if self._pipeline is not None:
                self._pipeline.route(command["outlet"], command["to"])

    def _on_playing(self) -> None:
        emit("playing")
        GLib.timeout_add_seconds(_STATS_S, self._tell_stats)

    def _tell_stats(self) -> bool:
        assert self._pipeline is not None
        emit("stats", **self._pipeline.stats())
        return True

    def _fail(self, detail: str) -> None:
        if self._status == 0:
            self._status = 1
            emit("error", detail=detail)
            self._loop.quit()


def emit(event: str, **data: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    Gst.init(None)  # reads, and may write, its register of plugins
    confine()
    sys.exit(Worker().run())
