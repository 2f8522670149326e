"""The controller's role at its switches: who of several may write.

Source: OpenFlow 1.3.5, section 6.3.5.
"""

from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.openflow.messages import ControllerRole
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.openflow.session import Refused


def took_role(event: Refused) -> bool:
    """Say whether a refusal means that another controller is master."""
    return (event.type, event.code) in (Refusal.IS_SLAVE.value, Refusal.STALE_ROLE.value)


class Roles:
    """Which role the controller has, and how a switch is told.

    A controller that was never given a role is equal to all others, and tells nobody.

    ``edition`` grows with each role that was taken.
    """

    def __init__(self) -> None:
        self.role = ControllerRole.EQUAL
        self.generation = 0
        self.edition = 0

    @property
    def may_write(self) -> bool:
        return self.role is not ControllerRole.SLAVE

    def take(self, role: ControllerRole, generation: int) -> None:
        """Have ``role`` from now on, at every switch that is told afterwards."""
        self.role, self.generation = role, generation
        self.edition += 1

    def lose(self) -> bool:
        """Stop writing, since another is master; say whether that is news."""
        was, self.role = self.may_write, ControllerRole.SLAVE
        return was

    async def tell(self, connection: Connection) -> None:
        """Have the switch know the role; a slave takes over the generation that the switch knows.

        Raises:
            DisconnectedError: it is not connected.
            FabricError: it refused, which :func:`took_role` hears of, or did not answer.
        """
        if not self.edition:
            return
        role = self.role
        try:
            await connection.set_role(role, self.generation)
        except DisconnectedError:
            raise
        except FabricError:
            if role is not ControllerRole.SLAVE:
                raise
            known = await connection.set_role(ControllerRole.NOCHANGE, 0)
            await connection.set_role(role, known.generation_id)
