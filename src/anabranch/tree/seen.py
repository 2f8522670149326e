"""Messages that have been handled, so that none is handled twice; in bounded memory."""

from anabranch.tree.soleil.messages import Message

_Key = tuple[str | None, str | int, int]


class Seen:
    """Remembers at least the last ``most`` messages, at most twice as many."""

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._new: set[_Key] = set()
        self._old: set[_Key] = set()

    def is_new(self, message: Message) -> bool:
        """Note a message; False if it was here before.

        One without an id is known by type, time and content.
        """
        key: _Key = (
            (message.sender, message.id, 0)
            if message.id is not None
            else (message.sender, hash(repr(message.body)), message.time_ms)
        )
        if key in self._new or key in self._old:
            return False
        if len(self._new) >= self._most:
            self._old, self._new = self._new, set()
        self._new.add(key)
        return True
