"""``anabranch doctor``: what this machine has and lacks, each with its remedy."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

import psutil

from anabranch.app.config import Config
from anabranch.app.settings import site_settings
from anabranch.core.errors import AnabranchError, UsageError
from anabranch.host.addresses import (
    global_addresses_6,
    ipv6,
    is_udp_port_free,
    local_addresses,
    outward_address,
    outward_address_6,
)
from anabranch.host.journal import Journal, holder
from anabranch.media.encoder import WORKER_PYTHON
from anabranch.media.janus_config import find_module
from anabranch.media.leaf import LeafUnavailableError
from anabranch.media.leaf_binary import PROGRAM, find_server
from anabranch.media.rtmp import RTMP_MODULE
from anabranch.site.plan import make_plan

State = Literal["ok", "lacks", "fails"]

_PROGRAMS = (
    ("ffmpeg", "ffmpeg", "fails", "no source can be read"),
    ("janus", "janus", "fails", "no viewer can be served"),
    ("ovs-vswitchd", "openvswitch-switch", "fails", "no switches"),
    ("ovsdb-tool", "openvswitch-common", "fails", "no switches"),
    ("dnsmasq", "dnsmasq-base", "lacks", "no addresses for virtual machines (fabric.dhcp)"),
    ("nft", "nftables", "fails", "leaves cannot be reached from other computers"),
    ("wg", "wireguard-tools", "lacks", "no nodes on other machines"),
    ("wireguard-go", "wireguard-go", "lacks", "no nodes on other machines, with this kernel"),
    ("ethtool", "ethtool", "fails", "packets would leave with wrong checksums"),
    ("nsenter", "util-linux", "fails", "no namespaces"),
    ("nginx", "nginx-light", "lacks", "no RTMP publishers"),
)
_ROOT_ONLY = {
    *("ovs-vswitchd", "ovsdb-tool", "dnsmasq", "nft", "wg", "wireguard-go", "ethtool", "nsenter")
}
_ELEMENTS = (
    "x264enc",
    "opusenc",
    "rtph264pay",
    "rtpopuspay",
    "multiudpsink",
    "matroskademux",
    "textoverlay",
    "mpegtsmux",
    "voaacenc",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``lacks`` costs a feature, ``fails`` keeps the site from coming up."""

    state: State
    what: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(config: Config) -> list[Finding]:
    """Look at this machine with the eyes of the site that ``config`` describes."""
    return [
        *_configuration(config),
        *_privileges(config),
        *_programs(config),
        *_leaf_server(config),
        *_encoder(),
        *_kernel(config),
        *_ports(config),
        *_whip_port(config),
        *_reachability(config),
        *_ipv6(config),
        *_room(config),
    ]


def check_essentials(config: Config) -> None:
    """See in a few milliseconds that every program is there without which no site comes up.

    Raises:
        UsageError: some are missing; the message is a line that names them and what brings them.
    """
    missing = [
        (program, package)
        for program, package, state, _ in _PROGRAMS
        if state == "fails" and _is_used(program, config) and not _is_there(program)
    ]
    if missing:
        programs = ", ".join(program for program, _ in missing)
        packages = " ".join(dict.fromkeys(package for _, package in missing))
        verb = "are" if len(missing) > 1 else "is"
        raise UsageError(f"{programs} {verb} missing: apt-get install {packages}")
    if config.leaf.kind == "anabranch":
        try:
            find_server()
        except LeafUnavailableError as error:
            raise UsageError(str(error)) from error


def _is_used(program: str, config: Config) -> bool:
    if program == "janus":
        return config.leaf.kind == "janus"
    return config.switches or program not in _ROOT_ONLY


def _is_there(program: str) -> bool:
    # Servers live in sbin, which is not on everybody's path.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return shutil.which(program, path=path) is not None


def _configuration(config: Config) -> Iterator[Finding]:
    try:
        make_plan(site_settings(config))
    except AnabranchError as error:
        yield Finding("fails", f"configuration: {error}", "correct it: anabranch config --check")
    else:
        yield Finding("ok", "configuration")


def _privileges(config: Config) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("ok", "root: a tree of switches is possible")
    elif config.carriage == "switches":
        yield Finding("fails", "not root, and the configuration wants switches", "use sudo")
    else:
        yield Finding(
            "lacks",
            "not root: channels go straight to one leaf server, without switches",
            "run with sudo for the tree of switches",
        )


def _programs(config: Config) -> Iterator[Finding]:
    for program, package, state, cost in _PROGRAMS:
        if not _is_used(program, config):
            continue
        if _is_there(program):
            yield Finding("ok", program)
        else:
            severity: State = "fails" if state == "fails" else "lacks"
            yield Finding(severity, f"{program} is missing: {cost}", f"apt-get install {package}")
    if not Path(RTMP_MODULE).is_file():
        yield Finding(
            "lacks",
            "nginx has no RTMP module: no RTMP publishers",
            "apt-get install libnginx-mod-rtmp",
        )
    if config.leaf.kind == "janus":
        try:
            find_module("plugins", "streaming")
            find_module("transports", "pfunix")
        except AnabranchError as error:
            yield Finding("fails", str(error), "apt-get install janus")
    if not shutil.which("chromium"):
        yield Finding("lacks", "Chromium is missing: no benchmarks", "apt-get install chromium")


def _leaf_server(config: Config) -> Iterator[Finding]:
    state: State = "fails" if config.leaf.kind == "anabranch" else "lacks"
    remedy = "from a checkout: ./scripts/up, or ./scripts/build for a wheel that has it"
    try:
        done = subprocess.run(
            [find_server(), "--version"], capture_output=True, text=True, check=False, timeout=5
        )
    except LeafUnavailableError as error:
        yield Finding(state, str(error), remedy)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(state, f"{PROGRAM} cannot be run: {error}", remedy)
    else:
        if done.returncode:
            words = done.stderr.strip().splitlines() or ["unknown"]
            yield Finding(state, f"{PROGRAM} does not run: {words[-1]}", remedy)
        else:
            yield Finding("ok", done.stdout.strip())


def _encoder() -> Iterator[Finding]:
    lines = [
        "import gi",
        "gi.require_version('Gst', '1.0')",
        "gi.require_version('GstVideo', '1.0')",
        "from gi.repository import Gst, GstVideo",
        "Gst.init(None)",
        f"print(*[n for n in {_ELEMENTS!r} if Gst.ElementFactory.find(n) is None])",
    ]
    remedy = (
        "apt-get install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base"
        " gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
        " gstreamer1.0-x"
    )
    try:
        done = subprocess.run(
            [WORKER_PYTHON, "-c", "\n".join(lines)],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("fails", f"GStreamer cannot be asked: {error}", remedy)
        return
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["unknown"]
        yield Finding("fails", f"GStreamer's Python bindings: {words[-1]}", remedy)
    elif done.stdout.strip():
        yield Finding("fails", f"GStreamer lacks {done.stdout.strip()}", remedy)
    else:
        yield Finding("ok", "GStreamer with every element the encoder uses")


def _kernel(config: Config) -> Iterator[Finding]:
    if not config.switches or os.geteuid() != 0:
        return
    if Path("/sys/module/openvswitch").exists():
        yield Finding("ok", "kernel has openvswitch (the userspace datapath is used all the same)")
    else:
        yield Finding("ok", "kernel without openvswitch: the userspace datapath is used")
    for what, command in (
        ("network namespaces", ["unshare", "--net", "true"]),
        (
            "links and their shaping (veth, tbf)",
            ["unshare", "--net", "sh", "-c", "ip link add name va type veth peer name vb &&"
             " tc qdisc add dev va root tbf rate 1mbit burst 10kb latency 50ms"],
        ),
        *(
            (
                f"port forwarding (nft, nat) for {name}",
                ["unshare", "--net", "sh", "-c",
                 f"nft add table {family} t && nft add chain {family} t c"
                 " '{ type nat hook prerouting priority dstnat; }' && nft add rule"
                 f" {family} t c fib daddr type local udp dport 1 dnat to {inner}"],
            )
            for name, family, inner in (("IPv4", "ip", "10.0.0.1"), ("IPv6", "ip6", "fd00::1"))
            if family == "ip" or any(":" in each for each in config.public_addresses())
        ),
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield Finding("ok", what)
        else:
            words = done.stderr.strip().splitlines() or ["refused"]
            yield Finding("fails", f"{what}: {words[0]}", "use a kernel that allows it")


def _ports(config: Config) -> Iterator[Finding]:
    pid = holder(config.run)
    if pid is not None:
        yield Finding("ok", f"the site is up (process {pid})")
        return
    if any(Journal(config.run).entries()):
        what = "an earlier run was killed and left things: `anabranch up` goes on with them"
        yield Finding("lacks", what, "anabranch up, or anabranch down")
        return
    for what, port in (("console", config.port), ("RTMP", config.ports.rtmp)):
        families = [socket.AF_INET]
        if what == "console" and config.host == "::" and ipv6() != "absent":
            families.append(socket.AF_INET6)
        try:
            for family in families:
                _take_port(port, family)
        except PermissionError:
            yield Finding("fails", f"port {port} ({what}) needs root", "choose another")
        except OSError:
            state: State = "fails" if what == "console" else "lacks"
            remedy = "set `listen`" if what == "console" else "set `ports.rtmp`"
            yield Finding(state, f"port {port} ({what}) is taken", f"{remedy} in anabranch.yaml")
        else:
            yield Finding("ok", f"port {port} ({what}) is free")


def _take_port(port: int, family: socket.AddressFamily) -> None:
    """Have a TCP port for a moment; raises OSError if it is not to be had."""
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(("", port))


def _whip_port(config: Config) -> Iterator[Finding]:
    port = config.ports.whip
    if holder(config.run) is not None:
        return  # the site is up, and says itself if it lacks the port
    if is_udp_port_free(port):
        yield Finding("ok", f"UDP port {port} (WHIP) is free")
    else:
        yield Finding(
            "lacks", f"UDP port {port} (WHIP) is taken", "set `ports.whip` in anabranch.yaml"
        )


def _reachability(config: Config) -> Iterator[Finding]:
    public = config.public_addresses()
    ports = config.ports.media
    if not (local_addresses() or global_addresses_6()):
        state: State = "lacks" if config.switches else "fails"
        yield Finding(
            state,
            "this machine has no address but loopback: no viewers from other computers",
            "connect it to a network",
        )
    elif public:
        yield Finding("ok", f"viewers reach the leaves at {', '.join(public)}, UDP {ports}")
        private = [address for address in public if _is_private(address)]
        if outward_address() is None and outward_address_6() is None:
            yield Finding("lacks", "no route to other networks", "set public_address if wrong")
        elif private:
            yield Finding(
                "ok",
                f"{private[0]} is a private address: viewers beyond the router need"
                f" public_address, and UDP {ports} forwarded",
            )
    else:
        yield Finding("lacks", "no public address: viewers on this machine only", "public_address")


def _is_private(address: str) -> bool:
    try:
        return IPv4Address(address).is_private
    except ValueError:
        return False


def _ipv6(config: Config) -> Iterator[Finding]:
    """Say whether viewers come by IPv6, and if not, why; addresses given are checked before."""
    if ipv6() == "absent":
        yield Finding("ok", "a kernel without IPv6: viewers by IPv4 alone")
    elif ipv6() == "disabled":
        yield Finding(
            "lacks",
            "IPv6 is disabled (net.ipv6.conf.all.disable_ipv6 is 1): viewers by IPv4 alone",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0, if this network has IPv6",
        )
    elif not any(":" in address for address in config.public_addresses()):
        if config.public_address == "auto":
            yield Finding("ok", "no lasting IPv6 address: viewers by IPv4 alone")
    elif config.leaf.kind == "janus":
        yield Finding("lacks", "Janus takes viewers by IPv4 alone", "leaf: anabranch")
    else:
        yield Finding("ok", "viewers by IPv6, too")


def _room(config: Config) -> Iterator[Finding]:
    path = config.state
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free / 1e6
    if free < 100:
        yield Finding("fails", f"{path} has {free:.0f} MB left", "make room for the store")
    else:
        yield Finding("ok", f"{free / 1000:.0f} GB free for the store")
    cores = psutil.cpu_count() or 1
    if cores < 2:
        yield Finding("lacks", "one core: two channels at once may stutter", "fewer renditions")
    else:
        yield Finding("ok", f"{cores} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB")
