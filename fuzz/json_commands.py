"""Commands as JSON: a command or a BadMessage, and data that every client can read or an error."""

from msgspec import UNSET

from app.codes import CommandError
from app.wire.messages import Error, Message, Publish, Rpc
from app.wire.plain import FORMATS, JSON, BadMessage, Format

MAX_DATA = 65_536


def fuzz(data: bytes) -> None:
    """One message."""
    take(JSON, data)


def take(format: Format, message: bytes) -> None:
    """As a session does it, up to what goes out again."""
    try:
        command = format.decode(message)
    except BadMessage as bad:
        refuse(format, bad, bad.id)
        return
    if not isinstance(command, Publish | Rpc) or not bytes(command.data):
        return
    try:
        payload = format.data_as_json(bytes(command.data), MAX_DATA)
    except CommandError as error:
        refuse(format, error, command.id)
        return
    for other in FORMATS:
        frame = other.frame(Message(room="x", data=other.data_from_json(payload)))
        assert other.text is frame.text
    checked = JSON.data_as_json(bytes(JSON.data_from_json(payload)), MAX_DATA)
    assert checked == payload, "what was taken once is taken by the next node too"


def refuse(format: Format, error: CommandError, id: int | str | None) -> None:
    assert error.error.code in (106, 107)
    reply = Error(id=UNSET if id is None else id, code=error.error.code, reason=error.reason, temporary=False)
    frame = format.frame(reply)
    assert len(frame.payload) < 2000, "a client is not quoted at length"
