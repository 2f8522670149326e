"""A sandbox's end of the transcoder: media made by ffmpeg, outside, from file to file.

    if context.transcoder is not None:
        job = context.transcoder.insert(film, clip, at=30.0, into=target)
        job.result(patience=300)

Files are descriptors, or anything with ``fileno()``; they may be closed once a job has begun. What
is read and what is written are regular files in the module's own directory. May be called from
any thread.
"""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from anabranch.services.transcoding.request import (
    MAX_MESSAGE,
    Answer,
    Container,
    Facts,
    Request,
    TranscodingError,
    Verb,
)

__all__ = ["Container", "Facts", "Job", "Transcoder", "TranscodingError"]


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


File = int | _HasFileno


class Job:
    """A job that was begun."""

    def __init__(self, number: int, cancel: Callable[[int], None]) -> None:
        self.number = number
        self.future: Future[Answer] = Future()
        self._cancel = cancel

    def result(self, patience: float | None = None) -> Answer:
        """Wait for the end.

        Raises:
            TranscodingError: it was refused or has failed.
            TimeoutError: it has not ended after ``patience`` seconds; it goes on.
        """
        return self.future.result(patience)

    def cancel(self) -> None:
        """Have it ended; :meth:`result` raises TranscodingError then."""
        self._cancel(self.number)


class Transcoder:
    """All modules of a sandbox share one; see docs/protocols/transcoding.md."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._made = 0
        self._reader: threading.Thread | None = None
        self._gone = False

    def describe(self, file: File) -> Job:
        """Find out what is in a file: the answer's ``facts``."""
        return self._begin(Verb.DESCRIBE, [file])

    def convert(self, file: File, *, into: File, container: Container = Container.MP4) -> Job:
        """Write a file anew as H.264 and AAC."""
        return self._begin(Verb.CONVERT, [file, into], container)

    def insert(
        self,
        file: File,
        clip: File,
        *,
        into: File,
        at: float = 0.0,
        container: Container = Container.MP4,
    ) -> Job:
        """Write a file anew with a clip before its second ``at``; size and rate are the file's."""
        return self._begin(Verb.INSERT, [file, clip, into], container, at)

    def _begin(
        self,
        verb: Verb,
        files: list[File],
        container: Container = Container.MP4,
        at: float = 0.0,
    ) -> Job:
        """Send a job.

        Raises:
            TranscodingError: the node takes none now.
        """
        descriptors = [file if isinstance(file, int) else file.fileno() for file in files]
        with self._lock:
            if self._gone:
                raise TranscodingError("the node processes no media any more")
            self._made += 1
            job = Job(self._made, self._cancel)
            self._jobs[job.number] = job
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, name="transcoder", daemon=True)
                self._reader.start()
        request = Request(job.number, verb, container, at)
        try:
            socket.send_fds(self._connection, [request.encode()], descriptors)
        except OSError as error:
            with self._lock:
                self._jobs.pop(job.number, None)
            raise TranscodingError(f"the node takes no job: {error.strerror}") from error
        return job

    def _cancel(self, number: int) -> None:
        with self._lock:
            known = number in self._jobs
        if known:
            try:
                self._connection.send(Request(number, Verb.CANCEL).encode())
            except OSError:
                return  # the reader finds out, too

    def _read(self) -> None:
        while True:
            try:
                data = self._connection.recv(MAX_MESSAGE)
                answer = Answer.parse(data) if data else None
            except (OSError, TranscodingError):
                answer = None
            if answer is None:
                break
            with self._lock:
                job = self._jobs.pop(answer.number, None)
            if job is not None:
                _end(job, answer)
        with self._lock:
            self._gone = True
            left, self._jobs = list(self._jobs.values()), {}
        for job in left:
            _end(job, Answer(job.number, "the node processes no media any more"))


def _end(job: Job, answer: Answer) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    if answer.error:
        job.future.set_exception(TranscodingError(answer.error))
    else:
        job.future.set_result(answer)
