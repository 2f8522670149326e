"""The site's bus: NATS, run by the operator, for nodes on other machines (docs/tree.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anabranch.core.errors import UsageError
from anabranch.core.files import write_private
from anabranch.tree.certificates import Credentials
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.soleil.messages import Endpoint
from anabranch.tree.transport.subjects import server_configuration

if TYPE_CHECKING:
    from anabranch.tree.transport.nats import Bus

CONFIGURATION = "nats-server.conf"
"""Name of the server's configuration in the directory of :class:`.settings.RemoteSettings`."""
_PORT = 4222


def make_bus(url: str, site: str, identity: Identity, credentials: Credentials) -> "Bus":
    """Return a node's connection to the bus, to be started.

    Raises:
        UsageError: the URL is no bus's, or nats-py is missing.
    """
    try:
        from anabranch.tree.transport.nats import Bus
    except ImportError:
        raise UsageError("a bus needs nats-py: pip install 'anabranch[nats]'") from None
    return Bus(url, site, identity, credentials)


def write_configuration(
    path: Path, url: str, site: str, nodes: Mapping[str, Role], credentials: Credentials
) -> None:
    """Write the server's configuration, mode 0600; it listens where the root finds it.

    Without TLS users have passwords, which the operator gives them: nothing is written then.

    Raises:
        OSError: it cannot be written.
    """
    at = urlsplit(url)
    if at.scheme == "tls":
        listen = Endpoint(at.hostname or "", at.port or _PORT)
        text = server_configuration(site, nodes, listen, credentials=credentials)
        write_private(path, text.encode())
