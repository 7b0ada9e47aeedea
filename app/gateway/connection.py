"""One client's transport as the gateway sees it; implemented by `server` (fast) and `http` (any ASGI server)."""

from collections.abc import Callable
from typing import Protocol

from app.wire.frames import Frame

#: Bytes can only be handed to the transport: it encrypts them, or is not ours.
NO_SOCKET = -1


Write = Callable[[bytes], None]


class Receiver(Protocol):
    """What a connection tells its session. Never raises; called in the event loop, one at a time."""

    def receive(self, payload: bytes, text: bool) -> None:
        """One whole message; a text message is valid UTF-8."""

    def pause_writing(self) -> None:
        """Bytes are unsent: the client is slower than what comes for it. May be called inside a write (O5)."""

    def resume_writing(self) -> None:
        """What was unsent has gone out."""

    def lost(self, code: int) -> None:
        """The connection is over: the peer's close code, or 1006 where none came. Called exactly once."""


class Connection(Protocol):
    """Bytes handed to it leave in order and cannot be taken back (O1)."""

    #: The client's address, behind trusted proxies the real one.
    address: str

    #: Writes ready-made frames straight to the transport; None where only whole messages can be sent.
    raw_write: Write | None

    #: Whether permessage-deflate was agreed on: `raw_write` takes `Frame.deflated` too, and `send` chooses by itself.
    compressed: bool

    @property
    def socket(self) -> int:
        """The descriptor that `raw_write` writes to, while the transport holds no unsent bytes; or NO_SOCKET."""

    def send(self, frame: Frame) -> None:
        """Hands over one message. Does nothing after `close`."""

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame after what was handed over, and gives the peer a bounded time to answer."""

    def abort(self) -> None:
        """Drops the connection at once, with what is unsent."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Lost:
    """Stands in for a connection that is gone, so that nothing keeps the real one alive (H4)."""

    address = ""
    raw_write: Write | None = None
    compressed = False
    socket = NO_SOCKET

    def send(self, frame: Frame) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        pass

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


LOST: Connection = _Lost()
