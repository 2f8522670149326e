"""What the three groups of bodies have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from xml.etree.ElementTree import Element

from anabranch.tree.soleil.messages import Body

Kind = TypeVar("Kind", bound=Body)


@dataclass(frozen=True, slots=True)
class Format(Generic[Kind]):
    """The format of one type: its record, and how that is read and written.

    ``read`` takes the children of ``<message>`` by tag, ``write`` returns them as XML.
    """

    kind: type[Kind]
    read: Callable[[dict[str, Element]], Kind]
    write: Callable[[Kind], str]
