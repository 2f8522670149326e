"""Media Relay: the module with real sockets, and the SIP server's side with a real module."""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from anabranch.services.module import Context
from anabranch.services.modules.mediarelay.mediarelay import MediaRelay, shared_secret
from anabranch.services.modules.mediarelay.provider import (
    Credentials,
    Relay,
    RelayError,
    RelayProvider,
    Relays,
    relay_of,
)

LOOPBACK = "127.0.0.1"


def context(**properties: str) -> Context:
    return Context("MediaRelay", "1.0.0", "itsp", properties, address=LOOPBACK)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        tried.bind((LOOPBACK, 0))
        return tried.getsockname()[1]


class OneNode:
    """A node that is everybody's nearest, and runs the module in this process."""

    def __init__(self) -> None:
        self.module: MediaRelay | None = None
        self.installed: list[str] = []

    async def install(self, towards: object, properties: Mapping[str, str]) -> Mapping[str, str]:
        self.installed.append(str(towards))
        if self.module is None:
            port = str(free_port())
            self.module = MediaRelay()
            self.module.configure(context(port=port, relayed="49152-49160", **properties))
            self.module.start()
        return {name: str(value) for name, value in self.module.status().items()}

    async def remove(self, towards: object) -> None:
        self.close()

    def close(self) -> None:
        if self.module is not None:
            self.module.stop()
            self.module = None


class Registered:
    """Who has registered."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = [ip_address(address) for address in addresses]

    async def callers(self, most: int) -> list:
        return self.addresses[:most]


@pytest.fixture
def node() -> Iterator[OneNode]:
    made = OneNode()
    yield made
    made.close()


def exchange(port: int, data: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((LOOPBACK, port))
        client.send(data)
        return client.recv(2000)


async def test_each_prefix_that_registers_gets_a_relay(node: OneNode) -> None:
    registered = Registered("192.0.2.1", "192.0.2.77")
    provider = RelayProvider(registered, node)
    await provider.turn()
    await provider.turn()
    assert node.installed == ["192.0.2.1"]
    registered.addresses.append(ip_address("198.51.100.1"))
    await provider.turn()
    assert node.installed == ["192.0.2.1", "198.51.100.1"]
    found = provider.relays.credentials(ip_address("192.0.2.200"), "alice", 1000.0, 600)
    assert isinstance(found, Credentials)
    assert found.username == "1600:alice"
    assert found.password not in repr(found)
    (uri,) = found.uris
    port = int(uri.split(":")[2].split("?")[0])
    binding = bytes.fromhex("000100002112a442") + b"t" * 12
    assert (await asyncio.to_thread(exchange, port, binding))[:2] == b"\x01\x01"
    assert provider.relays.credentials(ip_address("203.0.113.1"), "bob", 0.0, 60) is None


async def test_relays_are_renewed_and_removed(node: OneNode) -> None:
    provider = RelayProvider(Registered("192.0.2.1"), node, renewal=0.0)
    running = asyncio.create_task(provider.run())
    while len(node.installed) < 2:
        await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert node.module is None


def test_both_ends_have_one_secret() -> None:
    provider, module = X25519PrivateKey.generate(), MediaRelay()
    key = provider.public_key().public_bytes_raw()
    module.configure(context(key=key.hex(), relayed="50000-50001"))
    its = X25519PrivateKey.from_private_bytes(module.take_state()[:32])
    status = {"turn": "192.0.2.1:3478", "key": its.public_key().public_bytes_raw().hex()}
    assert relay_of(status, provider, 0.0).secret == shared_secret(its, key)
    successor = MediaRelay()
    successor.restore_state(module.take_state())
    assert successor.take_state() == module.take_state()


@pytest.mark.parametrize("status", [{}, {"turn": "x"}, {"turn": "x", "key": "zz"},
                                    {"turn": "x", "key": "00"}])  # fmt: skip
def test_a_status_that_says_too_little(status: dict[str, str]) -> None:
    with pytest.raises(RelayError):
        relay_of(status, X25519PrivateKey.generate(), 0.0)


@pytest.mark.parametrize(
    "properties",
    [{}, {"key": "00"}, {"key": "00" * 32}, {"relayed": "1"}, {"relayed": "0-4"}, {"port": "x"},
     {"port": "70000"}, {"relayed": "60000-70000"}],
)  # fmt: skip
def test_bad_properties_are_refused(properties: dict[str, str]) -> None:
    usual = {"key": X25519PrivateKey.generate().public_key().public_bytes_raw().hex()}
    with pytest.raises(ValueError):  # noqa: PT011 - what the contract asks for
        MediaRelay().configure(context(**(usual if "key" not in properties and properties else {}),
                                       **properties))  # fmt: skip


def test_prefixes_of_both_families() -> None:
    relays = Relays()
    relays.put(ip_address("2001:db8::1"), Relay("[2001:db8::2]:3478", b"s"))
    assert relays.credentials(ip_address("2001:db8:0:1::9"), "a", 0.0, 60) is not None
    assert relays.credentials(ip_address("2001:db9::9"), "a", 0.0, 60) is None
    relays.drop(ip_address("2001:db8::5"))
    assert len(relays) == 0
