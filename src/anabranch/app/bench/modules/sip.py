"""Keep-alives as a SIP phone behind a NAT sends them."""

_TEXT = (
    "NOTIFY sip:sip.example.com SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.168.0.9:5060;branch=z9hG4bK{n:05};rport\r\n"
    "From: <sip:alice@example.com>;tag=f{n:05}\r\n"
    "To: <sip:sip.example.com>\r\n"
    "Call-ID: {n:05}@192.168.0.9\r\n"
    "CSeq: 1 NOTIFY\r\nEvent: EVENT\r\nMax-Forwards: 70\r\n"
    "Content-Length: 0\r\n"
)
_NUMBER_BYTES, _FIELD_BYTES = 5, len("{n:05}")


def notify(size: int, event: str = "keep-alive") -> bytes:
    """Return a request of so many bytes, once ``{n:05}`` in it is a number of five digits."""
    text = _TEXT.replace("EVENT", event)
    length = len(text) - text.count("{n:05}") * (_FIELD_BYTES - _NUMBER_BYTES)
    padding = size - length - len("X-Pad: \r\n\r\n")
    return f"{text}X-Pad: {'p' * padding}\r\n\r\n".encode()
