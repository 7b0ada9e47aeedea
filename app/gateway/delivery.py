"""One publication on its way to the members of this node: encoded, framed and compressed once per format, shared."""

from collections.abc import Sequence

from msgspec import UNSET

from app.broker.base import Position
from app.wire.frames import Frame
from app.wire.messages import Message, Publisher
from app.wire.plain import FORMATS, Format
from app.wire.publication import Publication


class Delivery:
    """`deflate_from`: the size in bytes from which members with permessage-deflate get it compressed; 0: never."""

    __slots__ = ("_deflate_from", "_frames", "position", "publication", "room_name", "skipped")

    def __init__(self, room_name: str, position: Position, publication: Publication, *, deflate_from: int = 0) -> None:
        self.room_name = room_name
        self.position = position
        self.publication = publication
        #: Publications before this one that no member gets (conflated in the room's window).
        self.skipped = 0
        self._deflate_from = deflate_from
        self._frames: list[Frame | None] = [None] * len(FORMATS)

    def frame(self, format: Format) -> Frame:
        """What every member of that format gets."""
        frame = self._frames[format.index]
        if frame is None:
            frame = self._frames[format.index] = format.frame(self._message(format, 0), self._deflate_from)
        return frame

    def frame_for_one(self, format: Format, skipped: int) -> Frame:
        """For a member that missed `skipped` publications more than the others (O2). Not worth compressing for one."""
        return format.frame(self._message(format, skipped))

    def _message(self, format: Format, skipped: int) -> Message:
        publication = self.publication
        sender = Publisher(user=publication.user or "", session=publication.session) if publication.session else UNSET
        return Message(
            room=self.room_name,
            offset=self.position.offset or UNSET,
            data=format.data_from_json(bytes(publication.data)),
            sender=sender,
            tags=publication.tags or UNSET,
            skipped=self.skipped + skipped or UNSET,
        )

    def frame_for_sender(self, format: Format, skipped: int) -> Frame:
        """The publisher's own position without the data, where `echo` is off in a room with history (O2)."""
        return format.frame(
            Message(room=self.room_name, offset=self.position.offset, skipped=self.skipped + skipped or UNSET)
        )


def joined(deliveries: Sequence[Delivery], format: Format, *, compressed: bool) -> bytes:
    """What a socket is given for all of them; for one it is the shared frame itself, not a copy."""
    frames = [delivery.frame(format) for delivery in deliveries]
    wires = [frame.deflated if compressed else frame.wire for frame in frames]
    return wires[0] if len(wires) == 1 else b"".join(wires)
