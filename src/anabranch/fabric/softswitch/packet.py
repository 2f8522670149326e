"""A packet on its way through a switch."""

from dataclasses import replace

from anabranch.fabric import frames
from anabranch.fabric.openflow.actions import Action, PopVlan, PushVlan, SetField

PORT_TABLE, PORT_NORMAL, PORT_FLOOD, PORT_ALL = range(0xFFFFFFF9, 0xFFFFFFFD)


class Packet:
    """A frame, what is known about it, and where it has been sent to so far.

    Attributes:
        frame: as it is now.
        metadata: 64 bits.
        out: port number and frame of each copy sent, shared with all copies of this packet.
    """

    __slots__ = ("_fields", "_headers", "frame", "in_port", "metadata", "out")

    def __init__(
        self,
        frame: bytes,
        in_port: int,
        metadata: int = 0,
        out: list[tuple[int, bytes]] | None = None,
    ) -> None:
        self.frame = frame
        self.in_port = in_port
        self.metadata = metadata
        self.out = [] if out is None else out
        self._headers: frames.Headers | None = None
        self._fields: dict[str, int] | None = None

    def copy(self) -> "Packet":
        """Return a packet that changes on its own but is sent to the same list."""
        other = Packet(self.frame, self.in_port, self.metadata, self.out)
        other._headers, other._fields = self._headers, self._fields
        return other

    @property
    def fields(self) -> dict[str, int]:
        """All fields a match may ask for, as numbers. Not to be changed."""
        if self._fields is None:
            if self._headers is None:
                self._headers = frames.parse(self.frame)
            self._fields = {
                **self._headers.fields,
                "in_port": self.in_port,
                "metadata": self.metadata,
                "tunnel_id": 0,
            }
        return self._fields

    def set_metadata(self, metadata: int) -> None:
        self.metadata = metadata
        self._fields = None

    def emit(self, port_no: int) -> None:
        self.out.append((port_no, self.frame))

    def change(self, action: Action) -> None:
        """Do what an action that only rewrites does; any other changes nothing."""
        match action:
            case SetField(name, value):
                self._set(name, value)
                return
            case PushVlan(ethertype):
                frame = frames.push_vlan(self.frame, ethertype)
            case PopVlan():
                frame = frames.pop_vlan(self.frame)
            case _:
                return
        if frame is not self.frame:
            self.frame = frame
            self._headers = self._fields = None

    def _set(self, name: str, value: int | str) -> None:
        before = self._headers or frames.parse(self.frame)
        self.frame = frames.rewrite(self.frame, name, value, before)
        self._headers = before
        if self.frame is not before.frame:  # nothing has moved: only the one field is another
            fields = {**before.fields, name: frames.number(name, value)}
            self._headers = replace(before, frame=self.frame, fields=fields)
            self._fields = None
