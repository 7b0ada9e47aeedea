"""What other nodes publish: an envelope that can be delivered to clients of every format, or UnknownVersion."""

from app.broker.base import Position
from app.gateway.delivery import Delivery
from app.wire.plain import FORMATS
from app.wire.publication import pack, unpack
from app.wire.versioned import UnknownVersion


def fuzz(data: bytes) -> None:
    """An envelope as it comes from the broker."""
    try:
        publication = unpack(data)
    except UnknownVersion:
        return
    again = unpack(pack(publication))
    assert bytes(again.data) == bytes(publication.data)
    assert (again.user, again.session, again.key, again.tags) == (
        publication.user,
        publication.session,
        publication.key,
        publication.tags,
    )
    delivery = Delivery("chat:x", Position("epoch", 1), publication)
    for format in FORMATS:
        for frame in (
            delivery.frame(format),
            delivery.frame_for_one(format, 1),
            delivery.frame_for_sender(format, 1),
        ):
            assert frame.wire.endswith(frame.payload)
