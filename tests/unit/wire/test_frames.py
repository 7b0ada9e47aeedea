"""One message for the socket: plain, and compressed once for all who agreed on it (invariant 3, H7)."""

import random

import pytest

from app.wire.frames import BINARY, FIN, RSV1, TEXT, Frame, framed
from app.wire.parser import FrameParser
from tests.support.raw_websocket import client_frame

TEXTUAL = b'{"type":"message","room":"chat:x","data":"x"}' * 30


@pytest.mark.parametrize("text", [True, False])
def test_a_compressed_frame_holds_the_same_message(text: bool) -> None:
    frame = Frame(TEXTUAL, text=text, deflate_from=1000)
    opcode = TEXT if text else BINARY
    assert frame.wire == framed(opcode, TEXTUAL)
    assert len(frame.deflated) < len(TEXTUAL) // 5
    assert frame.deflated[0] == FIN | RSV1 | opcode
    payload = frame.deflated[2:] if frame.deflated[1] < 126 else frame.deflated[4:]
    sent_back = client_frame(opcode, payload, reserved=RSV1)
    assert list(FrameParser(100_000, deflate=True).feed(sent_back)) == [(opcode, TEXTUAL)]


def test_it_is_compressed_once_and_only_when_asked_for() -> None:
    frame = Frame(TEXTUAL, text=True, deflate_from=1)
    assert frame._deflated is None
    assert frame.deflated is frame.deflated


@pytest.mark.parametrize(
    ("payload", "deflate_from"),
    [
        (TEXTUAL, 0),
        (TEXTUAL, len(TEXTUAL) + 1),
        (b"short", 1),
        (random.Random(1).randbytes(5000), 1),  # would not become smaller
        (b"", 1),
    ],
)
def test_where_nothing_is_to_be_saved_the_plain_frame_is_shared(payload: bytes, deflate_from: int) -> None:
    frame = Frame(payload, text=False, deflate_from=deflate_from)
    assert frame.deflated is frame.wire


def test_the_threshold_is_the_first_size_that_is_compressed() -> None:
    assert Frame(TEXTUAL, text=True, deflate_from=len(TEXTUAL)).deflated[0] & RSV1
