"""One publication on its way to the members of this node: encoded once per format, framed once, shared."""

from msgspec import UNSET

from app.broker.base import Position
from app.wire.frames import Frame
from app.wire.messages import Message, Publisher
from app.wire.plain import FORMATS, Format
from app.wire.publication import Publication


class Delivery:
    __slots__ = ("_frames", "position", "publication", "room_name", "skipped")

    def __init__(self, room_name: str, position: Position, publication: Publication) -> None:
        self.room_name = room_name
        self.position = position
        self.publication = publication
        #: Publications before this one that no member gets (conflated in the room's window).
        self.skipped = 0
        self._frames: list[Frame | None] = [None] * len(FORMATS)

    def frame(self, format: Format) -> Frame:
        """What every member of that format gets."""
        frame = self._frames[format.index]
        if frame is None:
            frame = self._frames[format.index] = self.frame_for_one(format, 0)
        return frame

    def frame_for_one(self, format: Format, skipped: int) -> Frame:
        """For a member that missed `skipped` publications more than the others (O2)."""
        publication = self.publication
        sender = Publisher(user=publication.user or "", session=publication.session) if publication.session else UNSET
        return format.frame(
            Message(
                room=self.room_name,
                offset=self.position.offset or UNSET,
                data=format.data_from_json(bytes(publication.data)),
                sender=sender,
                tags=publication.tags or UNSET,
                skipped=self.skipped + skipped or UNSET,
            )
        )

    def frame_for_sender(self, format: Format, skipped: int) -> Frame:
        """The publisher's own position without the data, where `echo` is off in a room with history (O2)."""
        return format.frame(
            Message(room=self.room_name, offset=self.position.offset, skipped=self.skipped + skipped or UNSET)
        )
