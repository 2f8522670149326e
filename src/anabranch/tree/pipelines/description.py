"""Pipeline descriptions: a strict part of what gst-launch-1.0 takes, read into a graph.

    pipeline = chain { chain }
    chain    = link end { "!" link end }
    link end = FACTORY { PROPERTY "=" VALUE } | CAPS | NAME "."

Values may be quoted with ``"``; there are no escapes, bins, URIs, presets or pads by name. What
is named must be on the list of :mod:`elements`; everything is linked, from sources to outlets.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from anabranch.core.errors import UsageError
from anabranch.tree.pipelines.elements import ELEMENTS, FILTER, NAME, OUTLET, SOURCE, Kind
from anabranch.tree.soleil.messages import Fault

MAX_LENGTH = 8192
"""Characters of a description."""
MAX_ELEMENTS = 64

# a comma holds a value together, as in "video/x-raw, width=640"; possessive, so never quadratic
_TOKEN = re.compile(r'\s*+(?:(?P<link>!)|(?P<word>(?:[^\s!",]++|"[^"]*+"|\s*+,\s*+)++))')
_PROPERTY = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<value>.*)", re.DOTALL)
_REFERENCE = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]*)\.(?P<pad>[A-Za-z0-9_%-]*)")
_CAPS = re.compile(r"[a-z]+/[a-z]")


class DescriptionError(UsageError):
    """A description is not understood, or asks for what is not allowed.

    Attributes:
        fault: MALFORMED, FORBIDDEN or TOO_LARGE.
    """

    def __init__(self, text: str, fault: Fault = Fault.MALFORMED) -> None:
        super().__init__(text)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Element:
    """One element; values are as GStreamer writes them. ``end``: where its factory's name ends."""

    name: str
    factory: str
    properties: Mapping[str, str]
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Graph:
    """Elements in the order of the description, and links between them by name."""

    elements: tuple[Element, ...]
    links: tuple[tuple[str, str], ...]

    @property
    def sources(self) -> tuple[Element, ...]:
        return tuple(each for each in self.elements if each.factory == SOURCE)

    @property
    def outlets(self) -> tuple[str, ...]:
        """The names of the outlets."""
        return tuple(each.name for each in self.elements if each.factory == OUTLET)


@dataclass(slots=True, eq=False)
class _Draft:
    """An element being read, or ``name`` with a dot (then without a factory)."""

    factory: str | None
    end: int
    name: str | None = None
    properties: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name or self.factory or ""


def parse(text: str) -> Graph:
    """Read a description.

    Raises:
        DescriptionError: it is not understood, or something in it is not allowed.
    """
    if len(text) > MAX_LENGTH:
        raise DescriptionError(f"longer than {MAX_LENGTH} characters", Fault.TOO_LARGE)
    drafts, links = _read(text)
    made = [draft for draft in drafts if draft.factory is not None]
    if not made:
        raise DescriptionError("there is no element")
    if len(made) > MAX_ELEMENTS:
        raise DescriptionError(f"more than {MAX_ELEMENTS} elements", Fault.TOO_LARGE)
    by_name = _named(made)
    names = {draft: name for name, draft in by_name.items()}
    linked = {draft for link in links for draft in link}
    for draft in drafts:
        if draft.factory is None:
            if draft not in linked:
                raise DescriptionError(f"{draft.name}. is linked to nothing")
            if draft.name not in by_name:
                raise DescriptionError(f"no element is called {draft.name}")
            names[draft] = draft.name
    graph = Graph(
        tuple(
            Element(name, draft.factory or "", draft.properties, draft.end)
            for name, draft in by_name.items()
        ),
        tuple((names[left], names[right]) for left, right in links),
    )
    _check(graph)
    return graph


def with_ports(text: str, ports: Mapping[str, int]) -> str:
    """Return the description with the ports of sources that name none; ``ports`` by element."""
    for source in reversed(parse(text).sources):
        if "port" not in source.properties:
            text = f"{text[: source.end]} port={ports[source.name]}{text[source.end :]}"
    return text


def _read(text: str) -> tuple[list[_Draft], list[tuple[_Draft, _Draft]]]:
    drafts: list[_Draft] = []
    links: list[tuple[_Draft, _Draft]] = []
    left: _Draft | None = None
    last: _Draft | None = None
    if text.count('"') % 2:
        raise DescriptionError('a " is not closed')
    for token in _TOKEN.finditer(text.rstrip()):
        if token["link"]:
            if last is None:
                raise DescriptionError("there is nothing in front of a !")
            left, last = last, None
        elif (pair := _PROPERTY.fullmatch(token["word"])) is not None:
            if last is None or last.factory is None:
                raise DescriptionError(f"{pair['name'][:60]!r} belongs to no element")
            _set(last, pair["name"], pair["value"])
        else:
            last = _begin(token["word"].rstrip(), token.end())
            drafts.append(last)
            if left is not None:
                links.append((left, last))
                left = None
    if left is not None:
        raise DescriptionError("there is nothing behind the last !")
    return drafts, links


def _begin(word: str, end: int) -> _Draft:
    if (reference := _REFERENCE.fullmatch(word)) is not None:
        if reference["pad"]:
            raise DescriptionError(f"{word[:60]!r}: pads cannot be chosen")
        return _Draft(None, end, reference["name"])
    if _CAPS.match(word):
        draft = _Draft(FILTER, end)
        _set(draft, "caps", word)
        return draft
    if word not in ELEMENTS:
        raise DescriptionError(
            f"{word[:60]!r} is none of the elements that a pipeline may have", Fault.FORBIDDEN
        )
    return _Draft(word, end)


def _set(draft: _Draft, name: str, value: str) -> None:
    assert draft.factory is not None
    if name in draft.properties or (name == "name" and draft.name is not None):
        raise DescriptionError(f"{draft.factory} has two values for {name[:60]!r}")
    kinds: Mapping[str, Kind] = {"name": NAME, **ELEMENTS[draft.factory].properties}
    if name not in kinds:
        raise DescriptionError(
            f"the property {name[:60]!r} of {draft.factory} may not be set", Fault.FORBIDDEN
        )
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    try:
        read = kinds[name].read(value)
    except ValueError as error:
        raise DescriptionError(
            f"{name}={value[:60]!r} of {draft.factory} is not allowed: {error}", Fault.FORBIDDEN
        ) from None
    if name == "name":
        draft.name = read
    else:
        draft.properties[name] = read


def _named(drafts: list[_Draft]) -> dict[str, _Draft]:
    """Return the elements by name; who has none is called ``queue0``, ``queue1``, ..."""
    taken = Counter(draft.name for draft in drafts if draft.name is not None)
    for name, times in taken.items():
        if times > 1:
            raise DescriptionError(f"two elements are called {name}")
    named: dict[str, _Draft] = {}
    numbers: Counter[str] = Counter()
    for draft in drafts:
        assert draft.factory is not None
        for needed in ELEMENTS[draft.factory].needed:
            if needed not in draft.properties and (needed != "name" or draft.name is None):
                raise DescriptionError(f"{draft} needs {needed}=")
        named[draft.name or _free_name(draft.factory, numbers, taken)] = draft
    return named


def _free_name(factory: str, numbers: Counter[str], taken: Counter[str]) -> str:
    while True:
        name = f"{factory}{numbers[factory]}"
        numbers[factory] += 1
        if name not in taken:
            return name


def _check(graph: Graph) -> None:
    """Everything is linked, and leads from a source to an outlet."""
    inputs = Counter(right for _, right in graph.links)
    outputs = Counter(left for left, _ in graph.links)
    for element in graph.elements:
        name, shape = element.name, ELEMENTS[element.factory]
        if inputs[name] != shape.has_input:
            raise DescriptionError(
                f"{name} needs one input" if shape.has_input else f"{name} has no input"
            )
        if not shape.has_output:
            if outputs[name]:
                raise DescriptionError(f"{name} has no output")
        elif outputs[name] == 0 or (outputs[name] > 1 and not shape.branches):
            raise DescriptionError(f"{name} needs one output; more are a tee's")
    streams = Counter(source.properties["stream"] for source in graph.sources)
    ports = Counter(each.properties["port"] for each in graph.sources if "port" in each.properties)
    for what, counts in (("stream", streams), ("port", ports)):
        for value, times in counts.items():
            if times > 1:
                raise DescriptionError(f"two sources have the {what} {value}")
    # with one input each, what no source leads to is a circle
    reached = [each.name for each in graph.elements if not ELEMENTS[each.factory].has_input]
    for name in reached:
        reached.extend(right for left, right in graph.links if left == name)
    for element in graph.elements:
        if element.name not in reached:
            raise DescriptionError(f"{element.name} is part of a circle")
