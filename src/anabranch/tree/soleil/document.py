"""XML documents from strangers: bytes to elements, within limits; text to XML.

Of XML 1.0 there are elements, attributes, text, CDATA and comments. A document type is refused
where it begins, before any entity is declared: the first handler that raises stops expat.
"""

import re
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from anabranch.tree.soleil.errors import CodecError
from anabranch.tree.soleil.messages import Fault

MAX_BYTES = 256 * 1024
MAX_DEPTH = 8
MAX_ELEMENTS = 16_384
MAX_ATTRIBUTES = 16

_BOM = b"\xef\xbb\xbf"
_MARKUP = re.compile("[&<>\r]")
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse(data: bytes, *, max_bytes: int = MAX_BYTES, max_elements: int = MAX_ELEMENTS) -> Element:
    """Return the root of a document in UTF-8.

    Raises:
        CodecError: it is not well-formed, uses what is not allowed, or exceeds a limit.
    """
    if len(data) > max_bytes:
        raise CodecError(f"{len(data)} bytes, more than {max_bytes}", Fault.TOO_LARGE)
    data = data.removeprefix(_BOM)
    if b"\0" in data:
        raise CodecError("not UTF-8")  # expat would take UTF-16, whatever encoding it is told
    builder = TreeBuilder()
    parser = expat.ParserCreate("utf-8")
    open_element, close_element = builder.start, builder.end
    depth = elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth += 1
        elements += 1
        if depth > MAX_DEPTH or elements > max_elements or len(attributes) > MAX_ATTRIBUTES:
            raise CodecError("too many elements, levels or attributes", Fault.TOO_LARGE)
        open_element(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        close_element(tag)

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.XmlDeclHandler = _check_declaration
    parser.StartDoctypeDeclHandler = _refuse_document_type
    parser.ProcessingInstructionHandler = _refuse_instruction
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise CodecError(f"not well-formed: {error}") from None
    return builder.close()


def _check_declaration(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding is not None and encoding.lower() != "utf-8":
        raise CodecError("not UTF-8")


def _refuse_document_type(*_declared: object) -> None:
    raise CodecError("a document type is not allowed")


def _refuse_instruction(_target: str, _data: str) -> None:
    raise CodecError("a processing instruction is not allowed")


def escape(text: str) -> str:
    """Return ``text`` as the content of an element.

    Raises:
        CodecError: it has a character that XML 1.0 cannot carry.
    """
    if _ILLEGAL.search(text):
        raise CodecError("a text has a character that XML cannot carry")
    if not _MARKUP.search(text):
        return text
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\r", "&#13;")


def legible(text: str) -> str:
    """Return ``text`` with U+FFFD for what XML 1.0 cannot carry."""
    return _ILLEGAL.sub("\ufffd", text)
