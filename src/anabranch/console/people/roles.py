"""Roles: each may do what those below it may, and more."""

from enum import StrEnum


class Role(StrEnum):
    """What somebody may do on the site; ordered."""

    VIEWER = "viewer"
    """Watches public channels, and private ones to which it was let in."""
    PRODUCER = "producer"
    """Adds channels and manages its own."""
    OPERATOR = "operator"
    """Everything but accounts."""
    ADMIN = "admin"
    """Everything."""

    @property
    def rank(self) -> int:
        return _ORDER.index(self)

    def reaches(self, least: "Role") -> bool:
        """Say whether this role may do what ``least`` may."""
        return self.rank >= least.rank


_ORDER = list(Role)


def lower(one: Role, other: Role) -> Role:
    """Return the lower of two roles."""
    return min(one, other, key=lambda role: role.rank)
