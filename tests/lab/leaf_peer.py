"""The leaf server alone in a namespace, its controller, and peers that may do what they like.

They are put together from aioice, pyOpenSSL and libsrtp, so that they can send whatever they want
under their keys. Those who must notice nothing are leaf-load's.
"""

import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import pylibsrtp
from aioice import stun
from aiortc.rtcdtlstransport import SRTP_AES128_CM_SHA1_80, RTCCertificate
from OpenSSL import SSL
from tests.lab.inside import inside
from tests.waiting import wait_until

from anabranch.app.bench.viewers_load import find_program
from anabranch.app.bench.viewers_sdp import Credentials
from anabranch.host.network import make_namespace, remove_namespace
from anabranch.media.leaf_binary import find_server

PORT = 20000
VIEWERS = ("127.0.0.1", PORT)
VIDEO_PORT, AUDIO_PORT = 21000, 21001
VIDEO, AUDIO = 1, 2
"""Numbers of the streams that everybody watches; their SSRCs, too."""
Message = dict[str, Any]


def is_listening(path: Path) -> bool:
    """Say whether a Unix socket takes connections: its file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class LineClient:
    """Requests and events as lines of JSON, over whatever carries them."""

    def __init__(self, lines: Iterator[bytes], write: Callable[[bytes], object]) -> None:
        self.events: list[tuple[float, Message]] = []
        self._write = write
        self._numbers = itertools.count(1)
        self._replies: dict[int | None, Message] = {}
        self._news = threading.Condition()
        self.is_over = False
        self._thread = threading.Thread(target=self._listen, args=(lines,))
        self._thread.start()

    def _listen(self, lines: Iterator[bytes]) -> None:
        try:
            for line in lines:
                message = json.loads(line)
                with self._news:
                    if "event" in message:
                        self.events.append((time.monotonic(), message))
                    else:
                        self._replies[message["id"]] = message
                    self._news.notify_all()
        except OSError:
            pass
        with self._news:
            self.is_over = True
            self._news.notify_all()

    def join(self) -> None:
        self._thread.join(5.0)

    def send(self, do: str, **members: Any) -> int:
        number = next(self._numbers)
        self._write(json.dumps({"do": do, "id": number, **members}).encode() + b"\n")
        return number

    def reply(self, number: int | None) -> Message:
        with self._news:
            assert self._news.wait_for(lambda: number in self._replies or self.is_over, 10.0)
            return self._replies.pop(number)

    def ask(self, do: str, **members: Any) -> Message:
        """Return what came of a request: ``ok``, or ``error``."""
        reply = self.reply(self.send(do, **members))
        return reply["ok"] if "ok" in reply else reply["error"]

    def told(self, kind: str, **members: object) -> list[Message]:
        """The events of a kind so far that have these members."""
        events = [event for _, event in list(self.events) if event["event"] == kind]
        return [event for event in events if members.items() <= event.items()]

    def times(self, kind: str) -> list[float]:
        return [at for at, event in list(self.events) if event["event"] == kind]


class Control(LineClient):
    """A controller of the leaf server."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        super().__init__(iter(self._file.readline, b""), self._socket.sendall)
        wait_until(lambda: self.told("hello"))

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        with suppress(OSError):  # the server has closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self._file.close()
        self._socket.close()


def add_viewer(control: Control, name: str, own: Credentials, fingerprint: str) -> Message:
    return control.ask(
        "viewer.add",
        viewer=name,
        group="test",
        remote={
            "ufrag": own.ufrag,
            "pwd": own.pwd,
            "fingerprint": fingerprint,
            "setup": "actpass",
        },
        video={"payload_type": 102, "rtx_payload_type": 103, "mid": "0"},
        audio={"payload_type": 111, "mid": "1"},
        ladder=[{"stream": VIDEO, "kbps": 600}],
        sound=AUDIO,
        cname="leaf",
    )


def check(own: Credentials, leaf: Message, pwd: str | None = None) -> stun.Message:
    """A connectivity check that nominates, signed with the leaf's password or another one."""
    message = stun.Message(
        message_method=stun.Method.BINDING,
        message_class=stun.Class.REQUEST,
        attributes={
            "USERNAME": f"{leaf['ufrag']}:{own.ufrag}",
            "PRIORITY": 1,
            "ICE-CONTROLLING": 1,
            "USE-CANDIDATE": None,
        },
    )
    message.add_message_integrity((pwd or leaf["pwd"]).encode())
    return message


class Peer:
    """A viewer that is connected and does nothing more by itself."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.own = Credentials.random()
        self.certificate = RTCCertificate.generateCertificate()
        prints = {it.algorithm: it.value for it in self.certificate.getFingerprints()}
        self.leaf = self._add(world.control, f"sha-256 {prints['sha-256']}")
        self.socket = world.socket()
        self.sent: list[bytes] = []
        """What may be sent once more."""
        context = self.certificate._create_ssl_context([SRTP_AES128_CM_SHA1_80])
        self._ssl = SSL.Connection(context)
        self._ssl.set_connect_state()

    def _add(self, control: Control, fingerprint: str) -> Message:
        return add_viewer(control, self.name, self.own, fingerprint)

    def check(self) -> None:
        """Prove to be here, and wait for the answer."""
        self.drain()  # a full buffer has no room for it
        self.send(bytes(check(self.own, self.leaf)))
        while (data := self.socket.recv(2048))[0] > 3:
            pass  # media
        assert stun.parse_message(data).message_class is stun.Class.RESPONSE

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.socket.sendto(data, VIEWERS)

    def send_once(self, data: bytes) -> None:
        """Send what is not to be remembered."""
        self.socket.sendto(data, VIEWERS)

    def hello(self) -> bytes:
        """The first datagram of the handshake."""
        with suppress(SSL.WantReadError):
            self._ssl.do_handshake()
        return self._ssl.bio_read(2048)

    def connect(self) -> None:
        """Shake hands; what comes afterwards is media."""
        self.check()
        self.send(self.hello())
        while True:
            data = self.socket.recv(2048)
            if not 20 <= data[0] < 64:
                continue
            self._ssl.bio_write(data)
            try:
                self._ssl.do_handshake()
                break
            except SSL.WantReadError:
                self._flush()
        self._flush()
        profile = SRTP_AES128_CM_SHA1_80
        length = 2 * (profile.key_length + profile.salt_length)
        material = self._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", length)
        policy = pylibsrtp.Policy(
            key=profile.get_key_and_salt(material, 0),
            ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
            srtp_profile=profile.libsrtp_profile,
        )
        policy.allow_repeat_tx = True
        self._srtp = pylibsrtp.Session(policy)

    def _flush(self) -> None:
        with suppress(SSL.WantReadError):
            while True:
                self.send(self._ssl.bio_read(1500))

    def protected(self, rtcp: bytes) -> bytes:
        return self._srtp.protect_rtcp(rtcp)

    def protected_rtp(self, rtp: bytes) -> bytes:
        return self._srtp.protect(rtp)

    def drain(self) -> int:
        """Take what has come and return how many packets of media it is."""
        count = 0
        self.socket.setblocking(False)
        try:
            while True:
                count += self.socket.recv(2048)[0] >= 128
        except BlockingIOError:
            return count
        finally:
            self.socket.settimeout(5.0)

    def close(self) -> None:
        self.socket.close()


class PublishingPeer(Peer):
    """A publisher of a picture and a sound that does nothing by itself."""

    TO = ("127.0.0.1:22000", "127.0.0.1:22002")
    VIDEO_TYPE, RTX_TYPE, AUDIO_TYPE = 102, 103, 111

    def _add(self, control: Control, fingerprint: str) -> Message:
        remote = {"ufrag": self.own.ufrag, "pwd": self.own.pwd, "fingerprint": fingerprint}
        video = {
            "mid": "0",
            "kind": "video",
            "clock": 90_000,
            "payload_types": [self.VIDEO_TYPE],
            "rtx": {str(self.RTX_TYPE): self.VIDEO_TYPE},
            "extensions": {"mid": 4},
            "feedback": ["nack", "pli", "remb"],
            "to": self.TO[0],
        }
        audio = {
            "mid": "1",
            "kind": "audio",
            "clock": 48_000,
            "payload_types": [self.AUDIO_TYPE],
            "to": self.TO[1],
        }
        return control.ask(
            "publisher.add",
            publisher=self.name,
            remote={**remote, "setup": "active"},
            tracks=[video, audio],
        )


@dataclass
class World:
    """A leaf server, streams for it, and viewers who must notice nothing of what else happens."""

    netns: str
    control_path: Path
    control: Control
    process: psutil.Process
    load: LineClient
    fingerprint: str
    sockets: list[socket.socket] = field(default_factory=list)

    def socket(self, address: str = "127.0.0.1") -> socket.socket:
        """A socket in the namespace."""
        with inside(self.netns):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, 0))
        made.settimeout(5.0)
        self.sockets.append(made)
        return made

    def close_sockets(self) -> None:
        for made in self.sockets:
            made.close()

    def add_stream(self, number: int, port: int, **other: Any) -> Message:
        members = {
            "kind": "video",
            "name": f"stream{number}",
            "group": "test",
            "clock": 90_000,
            "kbps": 600,
            **other,
        }
        return self.control.ask(
            "stream.add", stream=number, port=port, address="127.0.0.1", **members
        )

    def watcher(self, name: str) -> None:
        own = Credentials.random()
        leaf = add_viewer(self.control, name, own, self.load.told("hello")[0]["fingerprint"])
        self.load.ask(
            "add",
            viewer=name,
            local={"ufrag": own.ufrag, "pwd": own.pwd},
            remote={
                "address": f"127.0.0.1:{PORT}",
                "ufrag": leaf["ufrag"],
                "pwd": leaf["pwd"],
                "fingerprint": self.fingerprint,
            },
            video={"payload_type": 102, "rtx_payload_type": 103},
            audio={"payload_type": 111},
        )
        wait_until(lambda: self.load.told("viewer.up", viewer=name))

    def peer(self, name: str) -> Peer:
        return Peer(self, name)

    def publisher(self, name: str) -> PublishingPeer:
        return PublishingPeer(self, name)

    def totals(self) -> dict[str, int]:
        return self.control.ask("statistics")["totals"]

    def stream(self, number: int) -> Message:
        return self.control.ask("statistics")["streams"][str(number)]

    def change(self, name: str, stream: int, sound: int | None = None) -> Message:
        return self.control.ask(
            "viewer.change",
            viewer=name,
            group="test",
            ladder=[{"stream": stream, "kbps": 600}],
            sound=sound,
        )

    @contextmanager
    def undisturbed(self, growth_mb: float = 30.0) -> Iterator[None]:
        """Watchers get all packets in time, and the server stays as small as it was."""
        self.load.ask("statistics", reset=True)
        before, size = self.load.ask("statistics", reset=True), self.process.memory_info().rss
        began = time.monotonic()
        yield
        time.sleep(max(0.0, began + 1.0 - time.monotonic()))
        passed = time.monotonic() - began
        after, totals = self.load.ask("statistics"), before["totals"]
        packets = after["totals"]["packets"] - totals["packets"]
        assert after["up"] == before["up"] == after["viewers"]
        # 50 of the sound and at least 25 of the picture.
        assert packets > 0.9 * 75 * passed * after["up"], (packets, passed)
        assert after["totals"]["lost"] - totals["lost"] <= packets / 1000
        for fault in ("duplicates", "unreadable"):
            assert after["totals"][fault] == totals[fault], fault
        # Of a frame's time, with a machine that has other work, too.
        delay = after["delay_us"]
        assert delay["p99"] < 40_000, delay
        assert delay["max"] < 400_000, delay
        grown = (self.process.memory_info().rss - size) / 2**20
        assert grown < growth_mb, f"{grown:.0f} MB more"


@contextmanager
def a_world(watchers: int = 4, threads: int = 1) -> Iterator[World]:
    # Short: Unix socket paths end at 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    netns = f"ab-{directory.name}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        make_namespace(netns)
        stack.callback(remove_namespace, netns)
        enter = ("nsenter", f"--net=/run/netns/{netns}", "--")

        def start(*argv: str, **pipes: Any) -> subprocess.Popen[bytes]:
            made = subprocess.Popen((*enter, *argv), stderr=subprocess.DEVNULL, **pipes)
            stack.enter_context(made)  # waits, and closes its pipes
            stack.callback(made.terminate)
            return made

        path = directory / "control.sock"
        listen = f"127.0.0.1:{PORT}"
        server = start(
            *(str(find_server()), "serve", "--control", str(path), "--listen", listen),
            *("--threads", str(threads)),
        )
        wait_until(lambda: is_listening(path))
        control = Control(path)
        first_one = stack.enter_context(ExitStack())
        first_one.callback(control.close)
        load = start(
            *(find_program(), "receive", "--bind", "127.0.0.1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert load.stdin is not None
        assert load.stdout is not None

        def written(line: bytes, to: IO[bytes] = load.stdin) -> None:
            to.write(line)
            to.flush()

        client = LineClient(iter(load.stdout.readline, b""), written)
        stack.callback(client.join)
        stack.callback(load.terminate)
        wait_until(lambda: client.told("hello"))
        fingerprint = control.told("hello")[0]["fingerprint"]
        world = World(netns, path, control, psutil.Process(server.pid), client, fingerprint)
        first_one.pop_all()
        stack.callback(lambda: world.control.close())
        stack.callback(world.close_sockets)
        assert world.add_stream(VIDEO, VIDEO_PORT) == {}
        assert world.add_stream(AUDIO, AUDIO_PORT, kind="audio", clock=48_000, kbps=64) == {}
        start(
            *(find_program(), "source", "--to", f"127.0.0.1:{VIDEO_PORT}", "--ssrc", str(VIDEO)),
            *("--audio-to", f"127.0.0.1:{AUDIO_PORT}", "--gop", "1"),
            stdout=subprocess.DEVNULL,
        )
        for number in range(watchers):
            world.watcher(f"watcher{number}")
        wait_until(lambda: client.ask("statistics")["totals"]["key_frames"] >= watchers)
        time.sleep(0.5)
        yield world
        assert server.poll() is None, "the leaf server has ended"
