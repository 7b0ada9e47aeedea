"""What is agreed on in the opening handshake: permessage-deflate (RFC 7692 section 7.1, H7)."""

import time

import pytest

from app.server.handshake import Answer, Head, agree_on_deflate, switching_protocols

ANSWER = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
DECLINED = b""


def agreed(*headers: str) -> bytes:
    return agree_on_deflate(Head(headers=[(b"sec-websocket-extensions", header.encode()) for header in headers]))


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",  # what browsers send
        "permessage-deflate; client_max_window_bits=8",
        'permessage-deflate; client_max_window_bits="15"',
        r'permessage-deflate; client_max_window_bits="1\5"',
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "  permessage-deflate\t;client_max_window_bits = 10 ",
        ",, permessage-deflate,",
        'x-other; a; b=c; d="e, permessage-deflate; \\"", permessage-deflate',
    ],
)
def test_an_offer_that_can_be_met_is_answered_without_context_takeover(offer: str) -> None:
    assert agreed(offer) == ANSWER


def test_who_limits_our_window_to_what_it_is_anyway_is_told_so() -> None:
    """RFC 7692 section 7.1.2.1: else the client fails the connection."""
    assert agreed("permessage-deflate; server_max_window_bits=15") == ANSWER + b"; server_max_window_bits=15"


UNMET = [
    "",
    "x-webkit-deflate-frame",
    "permessage-deflate2",
    *(f"permessage-deflate; server_max_window_bits={bits}" for bits in ("8", "9", "14", "16", "015", "x", '""')),
    "permessage-deflate; server_max_window_bits",
    *(f"permessage-deflate; client_max_window_bits={bits}" for bits in ("7", "16", "08", "-8", '" 8"', '""')),
    "permessage-deflate; server_no_context_takeover=1",
    'permessage-deflate; client_no_context_takeover=""',
    "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; unknown",
    "permessage-deflate; unknown=1",
]

UNREADABLE = [
    "permessage-deflate;",
    "permessage-deflate; =8",
    "permessage-deflate; client_max_window_bits=",
    'permessage-deflate; client_max_window_bits="8',
    "permessage-deflate client_max_window_bits",
    "permessage-deflate; a b",
    "(permessage-deflate)",
    "permessage-deflate\x00",
    "ä",
]


@pytest.mark.parametrize("offer", UNMET)
def test_an_offer_that_cannot_be_met_is_declined_and_the_next_one_tried(offer: str) -> None:
    assert agreed(offer) == DECLINED
    assert agreed(offer, "permessage-deflate") == ANSWER
    assert agreed(f"{offer}, permessage-deflate; client_max_window_bits") == ANSWER


@pytest.mark.parametrize("offer", UNREADABLE)
def test_what_cannot_be_read_declines_itself_and_what_follows(offer: str) -> None:
    assert agreed(offer) == DECLINED
    assert agreed(f"{offer}, permessage-deflate") == DECLINED
    assert agreed("permessage-deflate", offer) == ANSWER


@pytest.mark.parametrize("piece", [" ", ";", "a;", 'a="', ';a="b"', ",", "a,", "a ", "\\", '"', ";a=b"])
def test_no_header_takes_long_to_read(piece: str) -> None:
    """As long as `max_head_bytes` lets one be, and as long as is read; each takes under a millisecond."""
    before = time.process_time()
    for length in (32_768, 1000):
        assert agreed("x" + piece * (length // len(piece)) + "\x00") == DECLINED
    assert time.process_time() - before < 0.1


def test_a_list_that_is_too_long_is_declined_unread() -> None:
    offers = "x, " * 335
    assert agreed(offers + "permessage-deflate") == ANSWER
    assert agreed(offers + "permessage-deflate, x") == DECLINED


def test_the_response_says_what_was_agreed_on() -> None:
    assert b"\r\nsec-websocket-extensions: permessage-deflate\r\n" in switching_protocols(
        Answer(b"key", b"permessage-deflate"), None, []
    )
    assert b"extensions" not in switching_protocols(Answer(b"key"), None, [])
