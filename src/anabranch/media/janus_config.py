"""Janus' configuration files, as they follow from where it lives."""

import shutil
from pathlib import Path

from anabranch.media.leaf import LeafPlace, LeafUnavailableError


def write_configuration(place: LeafPlace, admin_secret: str) -> None:
    """Write Janus' configuration and links to the only two modules it shall load."""
    directory = place.directory
    for name in ("plugins", "transports", "events", "loggers"):
        shutil.rmtree(directory / name, ignore_errors=True)
        (directory / name).mkdir(parents=True, mode=0o700)
    for kind, module in (("plugins", "streaming"), ("transports", "pfunix")):
        (directory / kind / f"libjanus_{module}.so").symlink_to(find_module(kind, module))
    for name in ("api.sock", "admin.sock"):
        (directory / name).unlink(missing_ok=True)
    first, last = place.media_ports
    public = ""
    if place.public_addresses:
        addresses = ",".join(place.public_addresses)
        public = f'nat_1_1_mapping = "{addresses}"; keep_private_host = true;'
    texts = {
        "janus.jcfg": f"""
general: {{
  configs_folder = "{directory}"; plugins_folder = "{directory}/plugins";
  transports_folder = "{directory}/transports"; events_folder = "{directory}/events";
  loggers_folder = "{directory}/loggers";
  debug_level = 3; debug_colors = false; event_loops = 2;
  admin_secret = "{admin_secret}"; hide_dependencies = true;
}}
media: {{ rtp_port_range = "{first}-{last}"; }}
nat: {{
  ice_lite = true; ignore_mdns = true;
  ice_enforce_list = "{",".join(place.media_addresses)}"; {public}
}}
""",
        "janus.transport.pfunix.jcfg": f"""
general: {{
  enabled = true; json = "compact"; type = "SOCK_SEQPACKET"; path = "{directory}/api.sock";
}}
admin: {{
  admin_enabled = true; admin_type = "SOCK_SEQPACKET"; admin_path = "{directory}/admin.sock";
}}
""",
        "janus.plugin.streaming.jcfg": "general: { }\n",
    }
    for name, text in texts.items():
        path = directory / name
        path.unlink(missing_ok=True)  # one that is there would keep its mode
        path.touch(mode=0o600)
        path.write_text(text)


def find_module(kind: str, name: str) -> Path:
    """Return the path of one of Janus' modules, as Debian installs it.

    Raises:
        LeafUnavailableError: Janus is not installed.
    """
    for path in sorted(Path("/usr/lib").glob(f"**/janus/{kind}/libjanus_{name}.so")):
        return path
    raise LeafUnavailableError("Janus is not installed: apt-get install janus")
