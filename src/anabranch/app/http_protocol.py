"""HTTP/1.1 for uvicorn by httptools (llhttp), which parses in C what h11 does in Python.

Two things are added that h11 sees to, and uvicorn's adapter for httptools does not: what is no body
is limited, and fields after a body are not taken for headers.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
"""Bytes that may come before anything comes of them: of a head, trailers, chunk extensions."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It ends if more than :data:`MAX_HEAD` bytes lead to nothing."""

    _pending = 0
    _in_head = False

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending <= MAX_HEAD or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.send_400_response("The request's head is too large.")
        else:  # an answer is on its way: words of ours would be taken for a part of it
            self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is for whoever knows it (RFC 9110 section 6.5.1): nobody here.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._pending = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)
