"""A client's publication on its way to the broker, as `on_publish` sees and may change it."""

from typing import Any

import msgspec

from app.wire.payload import checked_json

_UNREAD: Any = object()


class Publishing:
    """What is going to be published. A hook may change `data` and `tags`, in place too."""

    __slots__ = ("_json", "_value", "key", "room", "tags")

    def __init__(self, room: str, json: bytes, key: str | None = None) -> None:
        self.room = room
        #: The publication's key for conflation, where the client gave one.
        self.key = key
        #: Short texts beside the data, for example what a moderator added; clients see them.
        self.tags: dict[str, str] = {}
        self._json = json
        self._value: Any = _UNREAD

    @property
    def data(self) -> Any:
        """The JSON value; decoded when it is first asked for."""
        if self._value is _UNREAD:
            self._value = msgspec.json.decode(self._json)
        return self._value

    @data.setter
    def data(self, value: Any) -> None:
        self._value = value

    @property
    def json(self) -> bytes:
        return self._json

    def seal(self, limit: int) -> None:
        """Takes over what the hook changed. Raises CommandError 106 above `limit` bytes, 107 for what some clients
        could not read; TypeError or ValueError for what is no JSON, or tags that are no texts."""
        if self._value is not _UNREAD:  # once seen, it may have been changed in place
            self._json = checked_json(msgspec.json.encode(self._value), limit)
        if self.tags:
            self.tags = msgspec.convert(self.tags, dict[str, str])
            msgspec.json.encode(self.tags)  # lone surrogates
