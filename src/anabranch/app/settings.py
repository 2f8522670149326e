"""What the configuration means for a site: its settings, and where it may run."""

import os
import stat
from pathlib import Path

from anabranch.app.config import Config, own_tmp
from anabranch.app.config_parts import NodeConfig, span
from anabranch.app.public import check_public_address, in_url
from anabranch.core.errors import UsageError
from anabranch.core.names import new_id
from anabranch.host.journal import Journal
from anabranch.site.rules import PlacementRules, TreeRules
from anabranch.site.settings import (
    Addresses,
    FabricSettings,
    IngressSettings,
    Outlet,
    Ports,
    RedundancyLink,
    RemoteSettings,
    ServiceSettings,
    SiteNode,
    SiteSettings,
)
from anabranch.tree.description import CandidateLink
from anabranch.tree.model import Role

_MAX_SOCKET_PATH = 107


def check_run_dir(config: Config, *, make: bool = False) -> None:
    """See that no other user has a hand in the run directory; it need not be there.

    Args:
        config: names the run directory.
        make: make the directory of ours in /tmp, if the run directory is in that.

    Raises:
        UsageError: it is another user's, or others may write to it.
    """
    places = [config.run]
    if own_tmp() in config.run.parents:
        places.insert(0, own_tmp())
        if make:
            try:
                own_tmp().mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise UsageError(f"cannot make {own_tmp()}: {error.strerror}") from error
    for path in places:
        try:
            status = path.lstat()
        except OSError:
            continue  # not there; or it cannot be had, which making it will tell
        if status.st_uid != os.geteuid():
            remedy = "use sudo" if status.st_uid == 0 else "set run_dir"
            raise UsageError(f"{path} belongs to another user: {remedy}")
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
            raise UsageError(
                f"{path} must be a directory that nobody else may write to:"
                f" chmod go-w {path}, or set run_dir"
            )
    if (
        make
        and config.run.is_dir()
        and any(config.run.iterdir())
        and not any(Journal(config.run).entries())
    ):
        # It is removed when the site ends: so it must have been made by one.
        raise UsageError(
            f"{config.run} is not empty, and no site's: set run_dir to a new directory"
        )


def _check_socket_paths(config: Config) -> None:
    paths = [config.run / "channels" / "1000" / "feed.sock"]
    if config.switches:
        paths += [config.run / node.name / "ovs" / "overlay.controller" for node in config.nodes]
    longest = max(len(os.fsencode(path)) for path in paths)
    if longest > _MAX_SOCKET_PATH:
        raise UsageError(
            f"the run directory {config.run} is {longest - _MAX_SOCKET_PATH} bytes too long for"
            " the sockets in it: set run_dir to a shorter one"
        )


def site_settings(config: Config) -> SiteSettings:
    """Turn the configuration into a site's settings.

    Raises:
        UsageError: values do not fit together.
    """
    public = config.public_addresses()
    for address in public:
        check_public_address(address)
    _check_socket_paths(config)
    ports = config.ports
    return SiteSettings(
        name=config.site,
        run_id=new_id(),
        run_dir=config.run,
        database_url=config.database or f"sqlite+aiosqlite:///{config.state / 'store.db'}",
        switches=config.switches,
        nodes=tuple(_node(node) for node in config.nodes),
        links=tuple(CandidateLink(*link.between, link.rate_mbit) for link in config.links),
        addresses=Addresses(
            config.addresses.overlay,
            config.addresses.access,
            config.addresses.groups,
            config.addresses.tunnels,
            config.addresses.access_6,
        ),
        ports=Ports(
            media=span(ports.media),
            inlets=span(ports.inlets),
            rtmp=ports.rtmp,
            whip=ports.whip,
            handover=span(ports.handover),
            srt=span(ports.srt),
            rtp=span(ports.rtp),
        ),
        fabric=FabricSettings(
            redundancy=tuple(
                RedundancyLink(*link.between, link.rate_mbit) for link in config.fabric.redundancy
            ),
            bfd_ms=config.fabric.bfd_ms,
            controllers=config.fabric.controllers,
            dhcp=config.fabric.dhcp,
        ),
        format=config.video.form,
        ladder=config.video.renditions,
        public_addresses=public,
        console=_console(config, public),
        test_channels=config.test_channels,
        keyframe_on_join=config.keyframe_on_join,
        tree=_tree_rules(config),
        placement=_placement_rules(config),
        leaf=config.leaf.settings,
        seats=config.seats.settings,
        ingress=IngressSettings(config.ingress.enabled, round(config.ingress.rate_mbit * 1000)),
        remote=_remote(config),
        services=_services(config),
    )


def _console(config: Config, public: tuple[str, ...]) -> str:
    """Return the URL by which others reach the pages, as far as that is known."""
    if config.host not in {"0.0.0.0", "::"} or not public:
        return config.local_url
    scheme = "https" if config.tls.enabled else "http"
    return f"{scheme}://{in_url(public[0])}:{config.port}"


def nodes_directory(config: Config) -> Path:
    """Return where the site keeps what it knows of nodes on other machines."""
    return config.state / "nodes"


def _remote(config: Config) -> RemoteSettings | None:
    if config.remote.listen is None:
        if config.remote.bus is not None:
            raise UsageError("remote.bus: set remote.listen, too: nodes join there")
        return None
    if not config.switches:
        raise UsageError("remote: nodes on other machines need switches")
    if config.fabric.controllers:
        raise UsageError("remote: not yet together with fabric.controllers")
    host, _, port = config.remote.listen.rpartition(":")
    return RemoteSettings((host.strip("[]"), int(port)), nodes_directory(config), config.remote.bus)


def _services(config: Config) -> ServiceSettings | None:
    wanted = config.services
    if not wanted.enabled:
        return None
    if not config.switches:
        raise UsageError("services: modules run behind switches, and this site has none")
    names = {node.name for node in config.nodes}
    for name in wanted.nodes or ():
        if name not in names:
            raise UsageError(f"services.nodes: there is no node {name}")
    users = None if wanted.users is None else wanted.users.expanduser().resolve()
    nodes = None if wanted.nodes is None else frozenset(wanted.nodes)
    return ServiceSettings(config.state / "services", users, nodes)


def _tree_rules(config: Config) -> TreeRules:
    rules = config.tree.rules
    rules.make_policy()  # raises if there is none of that name
    return rules


def _placement_rules(config: Config) -> PlacementRules:
    leaves = {node.name for node in config.nodes if node.role is Role.LEAF}
    for network, names in config.placement.prefixes.items():
        for name in names:
            if name not in leaves:
                raise UsageError(f"placement: {network} names {name}, which is no leaf")
    rules = PlacementRules(config.placement.policy, config.placement.prefixes)
    rules.make_placement()  # raises if there is none of that name
    return rules


def _node(node: NodeConfig) -> SiteNode:
    outlet = None if node.outlet is None else Outlet(**node.outlet.model_dump())
    return SiteNode(**node.model_dump(exclude={"outlet"}), outlet=outlet)
