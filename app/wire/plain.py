"""The plain protocol: one JSON object in a text frame, or one MessagePack map in a binary frame."""

from types import ModuleType

import msgspec
from msgspec import Raw, Struct

from app.codes import BAD_REQUEST, CommandError
from app.wire.frames import Frame
from app.wire.messages import AnyCommand, Event
from app.wire.payload import checked_json, json_of_msgpack

MSGPACK_SUBPROTOCOL = "carillon.msgpack"

#: Characters of what was wrong with a message: the decoder quotes it, and it may be as long as the message.
MAX_REASON = 200


class BadMessage(CommandError):
    """What came is no command of this protocol; `id` is the command's where it could be read."""

    def __init__(self, reason: str, id: int | str | None) -> None:
        super().__init__(BAD_REQUEST, reason[:MAX_REASON])
        self.id = id


class _OnlyId(Struct):
    id: int | str | None = None


class Format:
    """Commands and events as bytes: JSON. One object for all sessions; `index` numbers the formats of a node."""

    index = 0
    text = True

    def __init__(self, codec: ModuleType = msgspec.json) -> None:
        self._decoder = codec.Decoder(AnyCommand)
        self._id_decoder = codec.Decoder(_OnlyId)
        self._encoder = codec.Encoder()

    def decode(self, payload: bytes) -> AnyCommand:
        """Raises BadMessage."""
        try:
            command: AnyCommand = self._decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage(str(error), self._id(payload)) from None
        except RecursionError:
            raise BadMessage("the message is nested too deeply", None) from None
        return command

    def _id(self, payload: bytes) -> int | str | None:
        """The id of a bad command, as far as a reply may carry it."""
        try:
            id: int | str | None = self._id_decoder.decode(payload).id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if isinstance(id, str):
            return id if len(id) <= 64 else None
        return id if id is None or -(2**63) <= id < 2**63 else None

    def frame(self, event: Event, deflate_from: int = 0) -> Frame:
        """`deflate_from`: see Frame; only publications have it, never replies, which may carry tokens (H7)."""
        return Frame(self._encoder.encode(event), text=self.text, deflate_from=deflate_from)

    def data_as_json(self, data: bytes, limit: int) -> bytes:
        """A value from a client of this format as JSON. Raises CommandError 106 above `limit` bytes, and 107."""
        return checked_json(data, limit)

    def data_from_json(self, data: bytes) -> Raw:
        """JSON as it stands in an event of this format."""
        return Raw(data)


class MsgPackFormat(Format):
    """The same messages as MessagePack; values are those of JSON."""

    index = 1
    text = False

    def __init__(self) -> None:
        super().__init__(msgspec.msgpack)

    def data_as_json(self, data: bytes, limit: int) -> bytes:
        return json_of_msgpack(data, limit)

    def data_from_json(self, data: bytes) -> Raw:
        try:
            return Raw(msgspec.msgpack.encode(msgspec.json.decode(data)))
        except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
            # No node lets such a value in, so it was written into Redis by hand: that must not end the subscriber.
            return Raw(msgspec.msgpack.encode(None))


JSON = Format()
MSGPACK = MsgPackFormat()
FORMATS: tuple[Format, ...] = (JSON, MSGPACK)
