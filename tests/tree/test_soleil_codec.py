"""The codec: what is sent is read, the seed's own examples are read, nonsense is refused."""

import re
from contextlib import suppress
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tree.soleil_messages import BODIES, MESSAGES

from anabranch.tree.model import Role
from anabranch.tree.soleil import document
from anabranch.tree.soleil.bodies import FORMATS
from anabranch.tree.soleil.codec import MAX_BYTES, CodecError, decode, encode, type_of
from anabranch.tree.soleil.messages import (
    ROOT,
    Body,
    Bye,
    ChildsUpdate,
    Descendant,
    Endpoint,
    Error,
    Fault,
    FullStats,
    Hello,
    Message,
    Ping,
    PipeDef,
    Redirect,
    ReqFullStats,
    RoutePipeline,
    Stats,
    StreamStats,
)

SPECIFICATION = Path(__file__).parents[2] / "docs/protocols/soleil.md"
EXAMPLES = re.findall(r"^```xml\n(.*?)^```$", SPECIFICATION.read_text(), re.DOTALL | re.MULTILINE)

# the seed's four (000, sections 3.1.1 and 3.1.2), letter by letter, the slips included
SEED_HELLO = b"""<message type="hello" to="^" time="1367231998886">
  <info>
    <name>gstreamer_Notebook-PC_14982</name>
    <minaServerAddress host="
      143.225.229.199" port="14982"/>
    <minaClientAddress host="
      143.225.229.134" port="12054"/>
    <pipelines/>
  </info>
</message>
"""
SEED_STATS = b"""<messagetype="stats" time="1368548879868">
  <statsContainers>
    <statsContainer>
      <startTime>1368548254</startTime>
      <endTime>1368548879</endTime>
      <numOfChildren>3</numOfChildren>
      <id>1234567</id>
      <statArray>
        <DBValue>
          <name>injitter</name>
          <value>255.3</value>
        </DBValue>
        <DBValue>
          <name>cumpktlost</name>
          <value>12</value>
        </DBValue>
      </statArray>
    </statsContainer>
    <statsContainer>
      <startTime>1368548254</startTime>
      <endTime>1368548879</endTime>
      <numOfChildren>3</numOfChildren>
      <id>1234568</id>
      <statArray>
        <DBValue>
          <name>injitter</name>
          <value>240.2</value>
        </DBValue>
        <DBValue>
          <name>cumpktlost</name>
          <value>8</value>
        </DBValue>
      </statArray>
    </statsContainer>
  </statsContainers>
</message>
"""
SEED_REQUEST = b"""<message to="gstreamer_U36SD_52846" from="^" type="reqfullstats" \
time="1368548950349">
  <pipeid>1234567</pipeid>
</message>
"""
SEED_FULL_STATS = b"""<message to="^" from="gstreamer_U36SD_52846" type="fullstats" \
time="1368548950391">
  <xmlDb>
    <statsContainer>
      <startTime>1368548254</startTime>
      <endTime>1368548879</endTime>
      <numOfChildren>3</numOfChildren>
      <id>1234568</id>
      <statArray>
        <DBValue>
          <name>injitter</name>
          <value>240.2</value>
        </DBValue>
        <DBValue>
          <name>cumpklost</name>
                <value>8</value>
            </DBValue>
        </statArray>
    </statsContainer>
</xmlDb>
<endTime>1368548238</endTime>
</message>
"""
SEED = [SEED_HELLO, SEED_STATS, SEED_REQUEST, SEED_FULL_STATS]


def figures(stream: str, jitter: float, lost: float) -> StreamStats:
    values = {"injitter": jitter, "cumpktlost": lost}
    return StreamStats(stream, 1368548254, 1368548879, 3, values)


def refused(text: str | bytes) -> CodecError:
    with pytest.raises(CodecError) as caught:
        decode(text.encode() if isinstance(text, str) else text)
    return caught.value


def ping(attributes: str = 'time="1368548879868"', body: str = "<nonce>n</nonce>") -> str:
    return f'<message type="ping" {attributes}>{body}</message>'


def stats(value: str = "1", *, container: str = "", name: str = "cpu") -> str:
    return (
        '<message type="stats" time="1368548879868"><statsContainers><statsContainer>'
        "<startTime>1</startTime><endTime>2</endTime><numOfChildren>0</numOfChildren><id>1</id>"
        f"<statArray><DBValue><name>{name}</name><value>{value}</value></DBValue></statArray>"
        f"{container}</statsContainer></statsContainers></message>"
    )


def attributes(count: int) -> str:
    return " ".join(f'a{n}=""' for n in range(count))


def test_the_seeds_own_messages_are_read() -> None:
    assert decode(SEED_HELLO) == Message(
        Hello(
            "gstreamer_Notebook-PC_14982",
            Role.RELAY,
            Endpoint("143.225.229.199", 14982),
            Endpoint("143.225.229.134", 12054),
        ),
        1367231998886,
        ROOT,
    )
    assert decode(SEED_STATS) == Message(
        Stats((figures("1234567", 255.3, 12), figures("1234568", 240.2, 8))), 1368548879868
    )
    assert decode(SEED_REQUEST) == Message(
        ReqFullStats("1234567"), 1368548950349, "gstreamer_U36SD_52846", ROOT
    )
    assert decode(SEED_FULL_STATS) == Message(
        FullStats((figures("1234568", 240.2, 8),), None, 1368548238),
        1368548950391,
        ROOT,
        "gstreamer_U36SD_52846",
    )


@pytest.mark.parametrize("example", SEED)
def test_what_the_seed_shows_is_written_as_it_shows_it(example: bytes) -> None:
    """A reader of the seed's that passes over other attributes and ``node`` sees no difference."""
    mended = example.replace(b"<messagetype", b"<message type").replace(b"cumpklost", b"cumpktlost")
    theirs = ElementTree.fromstring(mended)
    ours = ElementTree.fromstring(encode(decode(example)))
    for node in ours.findall("node"):
        ours.remove(node)

    def shape(element: ElementTree.Element) -> object:
        attributes = {name: value.strip() for name, value in element.attrib.items()}
        text = (element.text or "").strip()
        return element.tag, attributes, text, [shape(child) for child in element]

    assert shape(ours) == shape(theirs)


@given(MESSAGES)
def test_what_is_sent_is_read(message: Message) -> None:
    assert decode(encode(message)) == message


@given(BODIES, st.data())
def test_any_case_of_the_type_is_read(body: Body, data: st.DataObject) -> None:
    name = type_of(body)
    other = "".join(data.draw(st.sampled_from([each, each.upper()])) for each in name)
    document = encode(Message(body, 1368548879868))
    assert decode(document.replace(name.encode(), other.encode(), 1)).body == body


def test_every_type_has_an_example_in_the_specification() -> None:
    seen = set()
    for example in EXAMPLES:
        message = decode(example.encode())
        assert decode(encode(message)) == message
        seen.add(type_of(message.body))
    assert seen == set(FORMATS)
    assert len(FORMATS) == 17


@pytest.mark.parametrize(
    ("written", "ms", "in_seconds"),
    [
        ("1368548879868", 1368548879868, False),
        ("1368548879", 1368548879000, True),
        (" 1368548879\n", 1368548879000, True),
        ("0", 0, True),
        ("99999999999", 99999999999000, True),
        ("100000000000", 100000000000, False),
        ("000000000005", 5, False),
    ],
)
def test_time_is_read_in_both_units_and_echoed_in_its_own(
    written: str, ms: int, in_seconds: bool
) -> None:
    request = decode(f'<message type="reqfullstats" time="{written}" from="^"/>'.encode())
    assert (request.time_ms, request.in_seconds) == (ms, in_seconds)
    assert isinstance(request.body, ReqFullStats)
    answer = Message(FullStats(), request.time_ms, in_seconds=request.in_seconds)
    assert f'time="{written.strip()}"'.encode() in encode(answer)


@pytest.mark.parametrize("time", ["", "-1", "1.5", "1e3", "1_0", "٣", "9" * 15, "9" * 5000])
def test_a_time_that_is_none(time: str) -> None:
    refused(ping(f'time="{time}"'))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xef\xbb\xbf",
        b"hello",
        b"<message",
        b"<message/>",
        b"<messages type='ping' time='1368548879868'/>",
        b"<message type='ping'/>",
        b"<message type='ping' time='1' time='1'/>",
        b"<message type='ping' time='1'/><message/>",
        b"<message type='ping' time='1'>\xff</message>",
        b"<message type='ping' time='1'>\xed\xa0\x80</message>",
        b"<message type='ping' time='1'>&#0;</message>",
        b"<message type='ping' time='1'>&nbsp;</message>",
        b"<message type='ping' time='1'><?php ?></message>",
        b"<?xml version='1.0' encoding='ISO-8859-1'?><message type='ping' time='1'/>",
        b"<?xml version='1.0' encoding='UTF-16'?><message type='ping' time='1'/>",
        b"<?xml version='1.0'?><?x?><message type='ping' time='1'/>",
        "<message type='ping' time='1'/>".encode("utf-16"),
        "<message type='ping' time='1'/>".encode("utf-16-le"),
        "<message type='ping' time='1'/>".encode("utf-16-be"),
        "<message type='ping' time='1'/>".encode("utf-32"),
        "<message type='ping' time='1' from='é'/>".encode("latin-1"),
        b"<messagetype='ping' time='1'><",
    ],
)
def test_what_is_not_well_formed_utf8(document: bytes) -> None:
    error = refused(document)
    assert error.fault is Fault.MALFORMED
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "document",
    [
        ping(),
        f"\ufeff{ping()}",
        f"<?xml version='1.0' encoding='utf-8'?>\n{ping()}",
        f"\n  <!-- hello -->{ping()}<!-- bye -->",
        ping(body="<nonce><![CDATA[n]]></nonce>"),
        ping(body="<nonce> n\n</nonce>"),
        ping(body="<nonce>&#110;<!-- n --></nonce>"),
        ping(body="<new/><new x='1'>text<newer/></new><nonce y='1'>n</nonce>"),
        ping(body="<nonce>n</nonce><new><![CDATA[<!DOCTYPE a><?b?>]]></new>"),
        ping('time="1368548879868" priority="7" xmlns:x="urn:x" x:y="z"'),
        ping().replace("<message type", "<messagetype"),
    ],
)
def test_what_other_writers_may_do(document: str) -> None:
    assert decode(document.encode()) == Message(Ping("n"), 1368548879868)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "declaration",
    [
        f'<!DOCTYPE message [<!ENTITY l0 "ha">{LAUGHS}]>',
        '<!DOCTYPE message [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE message SYSTEM "http://192.0.2.1/x.dtd">',
        '<!DOCTYPE message [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
        "<!DOCTYPE message>",
    ],
)
def test_no_document_type_and_no_entity(declaration: str) -> None:
    error = refused(declaration + ping(body="<nonce>&l9;</nonce>"))
    assert "document type" in str(error)


@pytest.mark.parametrize(
    "document",
    [
        ping(body="<a>" * 8 + "</a>" * 8),
        ping(body="<a>" * 30_000 + "</a>" * 30_000),
        ping(body="<a>" * 30_000),
        ping(body="<a/>" * document.MAX_ELEMENTS),
        ping(body=f"<a {attributes(17)}/>"),
        ping(body=f"<a {attributes(20_000)}/>"),
        ping(body=f"<a>{'x' * MAX_BYTES}</a>"),
        ping(f'time="1" x="{"y" * MAX_BYTES}"'),
        stats(container="".join(f"<DBValue><name>{n}</name></DBValue>" for n in range(70)))
        .replace("</statArray><DBValue>", "<DBValue>", 1)
        .replace("</statsContainer></stats", "</statArray></statsContainer></stats"),
        f'<message type="bye" time="1"><reason>{"x" * 5000}</reason></message>',
        '<message type="stats" time="1"><statsContainers>'
        f"{'<statsContainer/>' * 513}</statsContainers></message>",
        '<message type="routepipeline" time="1"><pipeid>1</pipeid><outlet name="a">'
        + '<address host="a" port="1"/>' * 65
        + "</outlet></message>",
    ],
)
def test_limits(document: str) -> None:
    assert refused(document).fault is Fault.TOO_LARGE


def test_the_largest_message_is_read() -> None:
    document = ping().encode()
    document += b" " * (MAX_BYTES - len(document))
    assert decode(document).body == Ping("n")
    assert refused(document + b" ").fault is Fault.TOO_LARGE


@pytest.mark.parametrize(
    "value",
    ["nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1e400", "", "1_0", "0x1", "1,5", "٣", "."],
)
def test_a_figure_that_is_none(value: str) -> None:
    refused(stats(value))


@pytest.mark.parametrize(
    ("value", "read"), [(" 255.3\n", 255.3), ("1e-7", 1e-7), ("-3", -3), ("+.5", 0.5), ("2.", 2)]
)
def test_a_figure(value: str, read: float) -> None:
    body = decode(stats(value).encode()).body
    assert isinstance(body, Stats)
    assert body.containers[0].values == {"cpu": read}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<startTime>1368548254</startTime>", 1368548254),
        ("<startTime>1368548254123</startTime>", 1368548254.123),
        ('<startTime ms="1368548254123">1368548254</startTime>', 1368548254.123),
    ],
)
def test_the_interval_is_read_in_both_units(written: str, read: float) -> None:
    body = decode(stats().replace("<startTime>1</startTime>", written).encode()).body
    assert isinstance(body, Stats)
    assert body.containers[0].start == read


@pytest.mark.parametrize(
    "document",
    [
        ping(body="<nonce>n</nonce><nonce>n</nonce>"),
        stats(container="<id>2</id>"),
        stats(container="<statArray/>"),
        stats("1</value><value>2"),
        stats("1</value></DBValue><DBValue><name>cpu</name><value>2"),
        stats(name="a b"),
        stats(name=""),
        stats().replace("<id>1</id>", ""),
        stats().replace("<startTime>1", "<startTime>-1"),
        stats().replace("<startTime>1", f"<startTime>{10**14}"),
        stats().replace("<startTime>", f"<startTime ms='{10**14}'>"),
        stats().replace("<statsContainer>", '<statsContainer weight="-1">'),
        stats().replace("<statsContainer>", '<statsContainer weight="nan">'),
        stats().replace("<statsContainers>", '<statsContainers round="x">'),
        '<message type="childsupdate" time="1"><children number="1">'
        '<child name="a" role="leaf" parent="b"/><child name="a" role="leaf" parent="c"/>'
        "</children></message>",
        '<message type="childsupdate" time="1"><children number="1">'
        '<child name="^" role="leaf" parent="b"/></children></message>',
        '<message type="childsupdate" time="1"><children number="1">'
        '<child name="a" role="king" parent="b"/></children></message>',
        '<message type="childsupdate" time="1"><children><child/></children></message>',
        '<message type="hello" time="1"/>',
        '<message type="hello" time="1"><info><name>*</name></info></message>',
        '<message type="hello" time="1"><info><name>a</name>'
        '<minaServerAddress host="a" port="0"/></info></message>',
        '<message type="hello" time="1"><info><name>a</name>'
        '<minaServerAddress host="a" port="65536"/></info></message>',
        '<message type="hello" time="1"><info><name>a</name>'
        '<minaServerAddress host="a b" port="1"/></info></message>',
        '<message type="hello" time="1"><info><name>a</name></info><node>'
        '<feature name="a"/><feature name="a"/></node></message>',
        '<message type="playpipeline" time="1"/>',
        '<message type="pipedef" time="1"><pipeid>1</pipeid></message>',
        '<message type="pipedefinfo" time="1"><pipeid>1</pipeid><state>odd</state></message>',
        '<message type="redirect" time="1"><redirect/></message>',
        '<message type="fullstats" time="1"/>',
        '<message type="ping" time="1" from="*"/>',
        '<message type="ping" time="1" to="^" from="^"/>',
        '<message type="ping" time="1" to="a b"/>',
        '<message type="ping" time="1" id=""/>',
    ],
)
def test_what_a_message_may_not_say(document: str) -> None:
    assert refused(document).fault is Fault.MALFORMED


def test_an_error_tells_whom_to_answer() -> None:
    error = refused('<message type="Dance" time="1" to="a" from="b" id="c"/>')
    assert error.fault is Fault.UNKNOWN_TYPE
    assert (error.type, error.to, error.sender, error.id) == ("dance", "a", "b", "c")
    error = refused('<message type="ping" time="x" to="a b" from="*" id="c"/>')
    assert (error.type, error.to, error.sender, error.id) == ("ping", None, None, "c")
    error = refused("<message")
    assert (error.type, error.to, error.sender, error.id) == (None, None, None, None)


def test_an_error_is_read_with_indulgence() -> None:
    """Whatever another implementation says: an ERROR must not be answered by one."""
    plain = decode(b'<message type="error" time="1"/>')
    assert plain.body == Error(Fault.FAILED)
    odd = decode(b'<message type="error" time="1"><error fault="flat-tyre">oh</error></message>')
    assert odd.body == Error(Fault.FAILED, "oh")


@pytest.mark.parametrize(
    "body",
    [
        Hello("a b", Role.LEAF),
        Hello("^", Role.LEAF),
        Hello("a", Role.LEAF, Endpoint("a", 0)),
        Hello("a", Role.LEAF, Endpoint('a"', 1)),
        Hello("a", Role.LEAF, pipelines=("p",) * 2000),
        Hello("a", Role.LEAF, features={"a": "x" * 5000}),
        Hello("a", Role.LEAF, features={str(n): "" for n in range(65)}),
        Hello("a", Role.LEAF, request="\0"),
        ChildsUpdate(-1),
        ChildsUpdate(1, (Descendant("a", Role.LEAF, "b"),) * 2),
        ChildsUpdate(1, tuple(Descendant(f"node-{n}", Role.LEAF, "b") for n in range(9000))),
        Ping("a b"),
        Redirect("a", (Endpoint("a", 1),) * 65),
        PipeDef("p", "x" * 70_000),
        PipeDef("p", "\x1b"),
        RoutePipeline("p", "", ()),
        Stats((StreamStats("1", 0, 0, 0, {"cpu": float("nan")}),)),
        Stats((StreamStats("1", float("inf"), 0, 0, {}),)),
        Stats((StreamStats("1", 0, 1e12, 0, {}),)),
        Stats((StreamStats("1", 0, 0, -1, {}),)),
        Stats((StreamStats("1", 0, 0, 0, {}, -1.0),)),
        Stats((StreamStats("1", 0, 0, 0, {str(n): n for n in range(65)}),)),
        Stats((StreamStats("1", 0, 0, 0, {}),) * 513),
    ],
)
def test_what_cannot_be_sent_is_not_sent(body: Body) -> None:
    with pytest.raises(CodecError):
        encode(Message(body, 1368548879868))


@pytest.mark.parametrize(
    "message",
    [
        Message(Bye(), -1),
        Message(Bye(), 10**14),
        Message(Bye(), 10**14, in_seconds=True),
        Message(Bye(), 1, ROOT, ROOT),
        Message(Bye(), 1, None, "*"),
        Message(Bye(), 1, "a b"),
        Message(Bye(), 1, id=""),
    ],
)
def test_an_envelope_that_cannot_be_sent(message: Message) -> None:
    with pytest.raises(CodecError):
        encode(message)


def test_text_for_people_is_made_legible() -> None:
    said = Error(Fault.FAILED, "\x1b[31mred\ud800" + "x" * 5000)
    body = decode(encode(Message(said, 1))).body
    assert isinstance(body, Error)
    assert body.text.startswith("\ufffd[31mred\ufffdxxx")
    assert len(body.text) == 4096


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    with suppress(CodecError):
        decode(data)


PIECES = st.sampled_from(
    [
        *(f'<message type="{name}" time="1" ' for name in FORMATS),
        *"<>/=\"'& ]",
        "to='^'",
        "from='a'",
        "<info>",
        "</info>",
        "<name>a</name>",
        "<pipeid>",
        "<pipelines/>",
        "<node role='leaf'>",
        "<statsContainers>",
        "<statsContainer>",
        "<xmlDb>",
        "<startTime>1</startTime>",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<?xml version='1.0'?>",
        "&#x0;",
        "&lt;",
        "\ufeff",
        "\0",
        "</message>",
    ]
)


@given(st.lists(PIECES, max_size=20))
def test_any_markup(pieces: list[str]) -> None:
    with suppress(CodecError):
        decode("".join(pieces).encode())


@pytest.mark.parametrize("example", [*SEED, *(each.encode() for each in EXAMPLES)])
def test_mutations(example: bytes) -> None:
    """Bytes changed, cut, repeated and moved: a message that can be sent on, or the one error."""
    draw = Random(example)
    for _ in range(400):
        data = bytearray(example)
        for _ in range(draw.randint(1, 4)):
            at, to = sorted(draw.randrange(len(data)) for _ in range(2))
            match draw.randrange(5):
                case 0:
                    data[at] = draw.randrange(256)
                case 1:
                    del data[at : at + draw.randint(1, 9)]
                case 2:
                    data[at:at] = data[at:to]
                case 3:
                    data[at:at] = draw.choice([b"<", b">", b'"', b"&", b"\0", b"<!DOCTYPE", b"]]>"])
                case _:
                    data[at], data[to] = data[to], data[at]
            if not data:
                break
        with suppress(CodecError):
            message = decode(bytes(data))
            assert decode(encode(message)) == message
