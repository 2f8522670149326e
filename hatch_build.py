"""Hatch's build hook: puts the leaf server, a program in Rust, into the wheel."""

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PROGRAMS = "src/anabranch/media/bin"
_BUILD = "set -euo pipefail; . scripts/leaf.sh; if has_rust; then build_leaf; fi"


class LeafServerHook(BuildHookInterface[BuilderConfig]):
    """Builds the leaf server if it is not there yet and there is a Rust to do it.

    It is linked with the C library and OpenSSL of the machine that built it, so the wheel is
    tagged ``linux_<machine>``, not ``manylinux``. Without it the wheel is ``any``, and the
    server must come from elsewhere (``ANABRANCH_LEAF_SERVER``, or the path).
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files; ``version`` is the kind of wheel."""
        if version == "editable":
            return
        server = Path(self.root, _PROGRAMS, "anabranch-leaf")
        if not server.exists():
            subprocess.run(["bash", "-c", _BUILD], cwd=self.root, check=True)
        if not server.exists():
            self.app.display_warning("The wheel has no leaf server: there is no Rust to build it.")
            return
        build_data["artifacts"] += [f"{_PROGRAMS}/anabranch-leaf", f"{_PROGRAMS}/leaf-load"]
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
