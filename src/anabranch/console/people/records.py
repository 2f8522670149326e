"""What is kept of people, as the program has it."""

from dataclasses import dataclass

from anabranch.console.people.roles import Role

SESSION_IDLE_S = 24 * 3600.0
SESSION_LIFE_S = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Account:
    """A person, or a program that has a password.

    Attributes:
        password: its Argon2id hash.
        created, seen: seconds since the epoch; ``seen`` is the last login.
    """

    id: str
    name: str
    role: Role
    password: str
    created: float
    seen: float | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in; ``secret`` is the SHA-256 of what its cookie holds."""

    id: str
    account: str
    secret: str
    created: float
    used: float

    def is_over(self, now: float) -> bool:
        return now >= self.expires or now - self.used >= SESSION_IDLE_S

    @property
    def expires(self) -> float:
        return self.created + SESSION_LIFE_S


@dataclass(frozen=True, slots=True)
class Token:
    """An API token; ``secret`` is the SHA-256 of all of it."""

    id: str
    account: str
    name: str
    role: Role
    secret: str
    created: float
    expires: float | None
    used: float | None = None

    def is_over(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now
