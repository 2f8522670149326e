"""Values of the database between Python and the wire. Source: RFC 7047, section 5.1."""

from collections.abc import Mapping
from typing import Any

from anabranch.fabric.errors import MisuseError, ProtocolError


class Uuid(str):
    """The identity of a row."""

    __slots__ = ()


class NewRow(str):
    """The name by which one transaction refers to a row that it inserts (``uuid-name``)."""

    __slots__ = ()


Atom = int | float | bool | str
Value = Atom | tuple[Atom, ...] | Mapping[Atom, Atom]
Row = Mapping[str, Value]


def encode(value: Value) -> Any:
    """Return ``value`` as JSON takes it; a tuple is a set.

    Raises:
        MisuseError: the database has no such value.
    """
    match value:
        case Uuid():
            return ["uuid", str(value)]
        case NewRow():
            return ["named-uuid", str(value)]
        case bool() | int() | float() | str():
            return value
        case tuple():
            return ["set", [encode(atom) for atom in value]]
        case Mapping():
            return ["map", [[encode(key), encode(item)] for key, item in value.items()]]
    raise MisuseError(f"the database has no value {value!r}")


def encode_row(row: Row) -> dict[str, Any]:
    return {column: encode(value) for column, value in row.items()}


def decode(raw: object) -> Value:
    """Return what JSON gave as a value. An optional column without a value is ``()``.

    Raises:
        ProtocolError: it is none.
    """
    match raw:
        case ["set", [*atoms]]:
            return tuple(_atom(atom) for atom in atoms)
        case ["map", [*pairs]]:
            return dict(_pair(pair) for pair in pairs)
    return _atom(raw)


def decode_row(raw: object) -> Row:
    if not isinstance(raw, dict):
        raise ProtocolError(f"a row of the database that is none: {str(raw)[:80]}")
    return {column: decode(value) for column, value in raw.items()}


def _atom(raw: object) -> Atom:
    match raw:
        case ["uuid", str(text)]:
            return Uuid(text)
        case bool() | int() | float() | str():
            return raw
    raise ProtocolError(f"a value of the database that is none: {str(raw)[:80]}")


def _pair(raw: object) -> tuple[Atom, Atom]:
    match raw:
        case [key, value]:
            return _atom(key), _atom(value)
    raise ProtocolError(f"a pair of the database that is none: {str(raw)[:80]}")


def members(value: Value) -> tuple[Atom, ...]:
    """Return the atoms of a set: on the wire a set of one is that one."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, Mapping):
        raise ProtocolError("a map where a set was expected")
    return (value,)


def same(one: Value, other: Value) -> bool:
    """Say whether two values are equal to the database, which knows no order."""
    if isinstance(one, Mapping) or isinstance(other, Mapping):
        return one == other
    return frozenset(members(one)) == frozenset(members(other))
