"""The subjects of SOLEIL on NATS, and the server's configuration that makes them to be trusted.

    soleil.SITE.from.ROLE.NAME.to.NAME.SESSION.NUMBER

The server lets each user publish only what is from itself, and hear only what is to itself, so that
sender, role and secrecy are the server's word (docs/protocols/soleil.md, *NATS*).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from anabranch.core.names import check_name
from anabranch.tree.certificates import Credentials
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.soleil.messages import ROOT, Endpoint

END = -1
"""The number of the message that ends a session; its payload is the reason."""
_MAX_PAYLOAD = 512 * 1024
_SUBJECT = re.compile(
    r"soleil\.(?P<site>[a-z0-9-]{1,40})\.from\.(?P<role>root|relay|leaf)\.(?P<name>[a-z0-9-]{1,40})"
    r"\.to\.(?P<to>\^|[a-z0-9-]{1,40})\.(?P<session>[0-9a-f]{32})\.(?P<number>end|[0-9]{1,15})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Where a message comes from and goes to.

    Attributes:
        to: a node's name, or ``^`` for the root, whatever it is called.
        session: drawn by the node that dials.
        number: 0 opens or accepts a session, 1 and up are documents, ``END`` ends it.
    """

    site: str
    sender: Identity
    to: str
    session: str
    number: int

    def __str__(self) -> str:
        number = "end" if self.number == END else str(self.number)
        return f"{_sent_by(self.site, self.sender)}.to.{self.to}.{self.session}.{number}"


def parse(text: str) -> Subject | None:
    """Return what a subject says; None: it is none of ours."""
    match = _SUBJECT.fullmatch(text)
    if match is None:
        return None
    sender = Identity(match["name"], Role(match["role"]))
    number = END if match["number"] == "end" else int(match["number"])
    return Subject(match["site"], sender, match["to"], match["session"], number)


def inboxes(site: str, identity: Identity) -> list[str]:
    """Return the subjects that a node hears."""
    names = [identity.name, *([ROOT] if identity.role is Role.ROOT else [])]
    return [f"soleil.{site}.from.*.*.to.{name}.>" for name in names]


def server_configuration(
    site: str,
    nodes: Mapping[str, Role],
    listen: Endpoint,
    *,
    credentials: Credentials | None = None,
    passwords: Mapping[str, str] | None = None,
) -> str:
    """Return a configuration of ``nats-server`` (2.9 or newer); write it with mode 0600.

    Args:
        nodes: every node of the site with its role, the root, too. Who is taken off the list is
            cut off when the server reads it anew (SIGHUP).
        credentials: the root's: TLS, and each node is who its certificate says.
        passwords: of each node where there is no TLS: on one machine, or for want of a better
            network only.

    Raises:
        UsageError: a name is not allowed.
    """
    assert (credentials is None) != (passwords is None)
    users = [
        _user(
            site, Identity(check_name(name), role), None if passwords is None else passwords[name]
        )
        for name, role in nodes.items()
    ]
    configuration: dict[str, object] = {
        "host": listen.host,
        "port": listen.port,
        "max_payload": _MAX_PAYLOAD,
        "ping_interval": "3s",
        "ping_max": 2,
        "authorization": {"timeout": 10, "users": users},
    }
    if credentials is not None:
        configuration["tls"] = {
            "cert_file": str(credentials.chain),
            "key_file": str(credentials.key),
            "ca_file": str(credentials.authority),
            "verify_and_map": True,
            "timeout": 10,
        }
    return json.dumps(configuration, indent=2) + "\n"


def _user(site: str, identity: Identity, password: str | None) -> dict[str, object]:
    publish = f"{_sent_by(site, identity)}.>"
    allowed = {"publish": [publish], "subscribe": inboxes(site, identity)}
    secret = {} if password is None else {"password": password}
    return {"user": identity.name, **secret, "permissions": allowed}


def _sent_by(site: str, sender: Identity) -> str:
    return f"soleil.{site}.from.{sender.role.value}.{sender.name}"
