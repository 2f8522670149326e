"""Where a message goes: the flow diagram of the seed's figure 3.1, which is lost, as one function.

                        from a neighbour that may not speak for `from`? --- refuse: forbidden
                                        |
      to: absent, me, or ^ at the root -+- *  -------- a descendant -------- anything else
                     |                  |                   |                      |
                   handle      handle, and forward      down to the         up; at the root
                               to every neighbour       child it is         refuse: no route
                               but where it came from   below

Nothing goes back to where it came from: it is refused instead. In a tree, each message therefore
ends after at most as many steps as the tree has links.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from anabranch.tree.soleil.codec import type_of
from anabranch.tree.soleil.messages import EVERYBODY, ROOT, Error, Fault, Message


@dataclass(frozen=True, slots=True)
class Position:
    """Where a node hangs in the tree.

    Attributes:
        name: the node's own.
        parent: its neighbour above; None: the root, or a node that has lost its parent.
        children: its neighbours below.
        below: each descendant, children included, with the child by which it is reached.
        is_root: it answers to ``^``.
    """

    name: str
    parent: str | None = None
    children: Collection[str] = ()
    below: Mapping[str, str] = field(default_factory=dict)
    is_root: bool = False


@dataclass(frozen=True, slots=True)
class Handle:
    """The message is for this node alone."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The message goes to ``neighbours``; ``handle``: it is for this node, too."""

    neighbours: tuple[str, ...]
    handle: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """The message ends here, and ``error`` goes to ``to``; None: to nobody.

    An ERROR is never answered by one. Who speaks for another is told so itself.
    """

    error: Error
    to: str | None


def route(
    position: Position, message: Message, source: str | None = None
) -> Handle | Forward | Refuse:
    """Decide about a message that came from the neighbour ``source``; None: from this node."""
    if source is not None and not _may_send(position, message.sender, source):
        return _refuse(message, Fault.FORBIDDEN, f"you do not speak for {message.sender}", source)
    to = message.to
    if to is None or to == position.name or (to == ROOT and position.is_root):
        return Handle()
    if to == EVERYBODY:
        above = () if position.parent is None else (position.parent,)
        others = tuple(each for each in (*above, *position.children) if each != source)
        return Forward(others, handle=source is not None)
    towards = position.below.get(to, position.parent)
    if towards is None or towards == source:
        return _refuse(message, Fault.NO_ROUTE, f"no way to {to}", message.sender or source)
    return Forward((towards,))


def attributed(message: Message, neighbour: str) -> Message:
    """Return what came from ``neighbour`` as it is handed on: with the name of who wrote it."""
    return message if message.sender is not None else replace(message, sender=neighbour)


def _may_send(position: Position, sender: str | None, source: str) -> bool:
    """Tell whether ``source`` may hand on what ``sender`` wrote.

    A child speaks for itself and what is below it; the parent for everybody else, and it alone for
    the root.
    """
    if sender is None:
        return True
    if source == position.parent:
        return sender != position.name and sender not in position.below
    return position.below.get(sender) == source


def _refuse(message: Message, fault: Fault, text: str, to: str | None) -> Refuse:
    error = Error(fault, text, type_of(message.body), message.id)
    return Refuse(error, None if isinstance(message.body, Error) else to)
