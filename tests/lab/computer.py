"""Another computer."""

import secrets
import subprocess

from tests.lab.two_bridges import run


class Computer:
    """A namespace with one address, and this machine as its only neighbour.

    Args:
        here: this machine's address on the way there, of either family.
        there: the other's.
        length: of the prefix of both.
    """

    def __init__(self, here: str, there: str, length: int) -> None:
        self.name, device = (f"abpc{secrets.token_hex(2)}" for _ in range(2))
        self.device = device
        flags = ["nodad"] if ":" in here else []
        try:
            run("ip", "netns", "add", self.name)
            run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0",
                "netns", self.name)  # fmt: skip
            run("ip", "addr", "add", f"{here}/{length}", "dev", device, *flags)
            run("ip", "link", "set", device, "up")
            run("ip", "-n", self.name, "link", "set", "lo", "up")
            run("ip", "-n", self.name, "addr", "add", f"{there}/{length}", "dev", "eth0", *flags)
            run("ip", "-n", self.name, "link", "set", "eth0", "up")
            family = "-6" if flags else "-4"
            run("ip", "-n", self.name, family, "route", "add", "default", "via", here)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], check=False)
        subprocess.run(["ip", "link", "delete", self.device], check=False, capture_output=True)

    @property
    def command(self) -> list[str]:
        """What runs a command there."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]
