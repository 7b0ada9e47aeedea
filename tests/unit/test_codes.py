"""The catalogue of codes: complete, unambiguous, and such that SDKs act on it as meant."""

from app import codes
from app.codes import CLOSES, ERRORS, CloseCode, CommandError, Disconnect, ErrorCode


def test_the_catalogue_lists_every_code_in_order() -> None:
    named = vars(codes).values()
    assert sorted((c for c in named if isinstance(c, ErrorCode)), key=lambda c: c.code) == list(ERRORS)
    assert sorted((c for c in named if isinstance(c, CloseCode)), key=lambda c: c.code) == list(CLOSES)


def test_no_number_stands_for_two_things() -> None:
    numbers = [error.code for error in ERRORS] + [close.code for close in CLOSES]
    assert len(set(numbers)) == len(numbers)


def test_clients_come_back_exactly_where_the_number_says_so() -> None:
    for close in CLOSES:
        if close.code >= 3000:
            assert close.reconnect == (close.code < 3500), close


def test_every_code_has_a_reason_and_a_meaning_that_is_a_sentence() -> None:
    entries: list[ErrorCode | CloseCode] = [*ERRORS, *CLOSES]
    for entry in entries:
        assert entry.reason
        assert entry.meaning.endswith("."), entry


def test_every_reason_fits_into_a_close_frame() -> None:
    for close in CLOSES:
        assert len(close.reason.encode()) <= 123  # RFC 6455 section 5.5: 125 bytes, two of them the code


def test_exceptions_carry_the_catalogue_entry_and_a_reason() -> None:
    assert CommandError(codes.BAD_REQUEST).reason == "bad request"
    assert str(CommandError(codes.BAD_REQUEST, "room is empty")) == "107 room is empty"
    assert Disconnect(codes.ACCESS_DENIED, "banned").close is codes.ACCESS_DENIED
    assert str(Disconnect(codes.ACCESS_DENIED)) == "3507 permission denied"
