"""Connection mode over real TCP and TLS."""

import asyncio
import datetime
import ipaddress
import os
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from anabranch.services.node.streams import Streams
from anabranch.services.signalling.gist.node import Gist
from anabranch.services.signalling.gist.objects import Flow, Stack, Transport
from anabranch.services.signalling.gist.options import GistOptions
from anabranch.services.signalling.gist.sessions import Peer
from anabranch.services.signalling.gist.wire import GistMessage, MessageType

LOOPBACK = ipaddress.ip_address("127.0.0.1")
LARGE = GistMessage(MessageType.DATA, Flow(LOOPBACK, LOOPBACK), bytes(16), data=b"x" * 4000)


class End:
    """A GIST whose connections are real."""

    def __init__(self, tls: bool, context: ssl.SSLContext | None) -> None:
        transports = (Transport.TCP, Transport.TLS) if tls else (Transport.TCP,)
        self.stack = Stack((transports,), 1, 90_000)
        options = GistOptions(stack=self.stack)
        self.gist = Gist(b"end", options, address_towards=lambda peer: LOOPBACK, random=os.urandom)
        self.datagrams = 0
        self.streams = Streams(
            self.gist, time.monotonic, self.pump, server_tls=context, client_tls=context
        )

    def pump(self) -> None:
        while self.gist.outputs:
            output = self.gist.outputs.popleft()
            if hasattr(output, "destination"):
                self.datagrams += 1
            else:
                self.streams.perform(output)

    def send(self, port: int, *, tls: bool) -> None:
        peer = self.peer = Peer(b"other", LOOPBACK, 270)
        transports = (Transport.TCP, Transport.TLS) if tls else (Transport.TCP,)
        peer.stack = Stack((transports,), port, 90_000)
        self.gist.associations.send(peer, LARGE, time.monotonic())
        self.pump()


def contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (directory / "node.pem").write_bytes(pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "node.pem")
    client = ssl.create_default_context(cafile=str(directory / "node.pem"))
    return server, client


async def until(true) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_large_message_opens_a_connection_that_ends_with_its_other_side(
    tmp_path: Path, tls: bool
) -> None:
    server_context, client_context = contexts(tmp_path) if tls else (None, None)
    server, client = End(tls, server_context), End(tls, client_context)
    try:
        port = await server.streams.listen(0, "127.0.0.1")
        client.send(port, tls=tls)
        await until(lambda: server.gist.refused)  # it knows no such session, and has read it whole
        assert len(client.gist.associations) == len(server.gist.associations) == 1
        assert client.datagrams == 0
        await server.streams.close()
        await until(lambda: not len(client.gist.associations))
        assert client.peer.association is None
    finally:
        await server.streams.close()
        await client.streams.close()


async def test_nobody_listens_or_speaks_another_way_so_it_goes_as_datagram(tmp_path: Path) -> None:
    client = End(False, None)
    try:
        client.send(1, tls=False)
        await until(lambda: client.datagrams == 1)
        client.send(1, tls=True)
        assert client.datagrams == 2
    finally:
        await client.streams.close()


async def test_nonsense_ends_its_connection(tmp_path: Path) -> None:
    server = End(False, None)
    try:
        port = await server.streams.listen(0, "127.0.0.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        assert len(server.gist.associations) == 0
        writer.close()
    finally:
        await server.streams.close()
