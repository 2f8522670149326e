"""The soft switch behind its agent, as a device of the conformance suite."""

from tests.fabric.softswitch.cases import PORTS, Copy, Device

from anabranch.fabric.softswitch.agent import SwitchAgent
from anabranch.fabric.softswitch.switch import SoftSwitch


class SoftDevice(Device):
    """Time passes only in ``wait``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.switch = SoftSwitch(0xAB, PORTS, now=self.now)
        self.agent = SwitchAgent(self.switch)
        self.channel = self.agent.connect()
        self._pending: list[Copy] = []
        self.handshake()

    def exchange(self, data: bytes) -> bytes:
        self._pending += map(tuple, self.channel.receive(data, self.now))  # type: ignore[arg-type]
        return self.channel.data_to_send()

    def transfer(self, in_port: int, frame: bytes) -> list[Copy]:
        emitted = [*self._pending, *map(tuple, self.agent.process(in_port, frame, self.now))]
        self._pending.clear()
        return emitted  # type: ignore[return-value]

    def set_port(self, port_no: int, up: bool) -> None:
        self.switch.set_port(port_no, up)
        self.agent.tell()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.agent.handle_timer(self.now)

    def settle(self) -> None:
        pass
