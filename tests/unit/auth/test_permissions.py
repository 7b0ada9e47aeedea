"""Patterns and claims: `*` matches any run of characters, `:` included (A5)."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.permissions import Claims, matches


@pytest.mark.parametrize(
    ("pattern", "room", "covered"),
    [
        ("chat:lobby", "chat:lobby", True),
        ("chat:lobby", "chat:lobby2", False),
        ("chat:*", "chat:", True),
        ("chat:*", "chat:a:b", True),
        ("chat:*", "chats:a", False),
        ("*", "anything:at all", True),
        ("*", "", True),
        ("*:news", "de:sport:news", True),
        ("*:news", "de:news:sport", False),
        ("a*a", "a", False),  # the two ends do not overlap
        ("a*a", "aa", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("a**b", "ab", True),
        ("chat.*", "chat:x", False),  # nothing but `*` is special
        ("[ab]*", "a", False),
        ("", "", True),
        ("", "a", False),
        ("chat:*", "chat:two\nlines", True),
    ],
)
def test_patterns(pattern: str, room: str, covered: bool) -> None:
    assert matches((pattern,), room) is covered


def naive(pattern: str, room: str) -> bool:
    """The definition, word for word."""
    if not pattern:
        return not room
    if pattern[0] == "*":
        return any(naive(pattern[1:], room[skipped:]) for skipped in range(len(room) + 1))
    return room[:1] == pattern[0] and naive(pattern[1:], room[1:])


@given(st.text("ab:*", max_size=7), st.text("ab:*", max_size=9))
def test_patterns_mean_what_their_definition_says(pattern: str, room: str) -> None:
    assert matches((pattern,), room) is naive(pattern, room)


def test_one_pattern_of_several_is_enough() -> None:
    assert matches(("x", "news:*", "chat:lobby"), "chat:lobby")
    assert not matches(("x", "news:*"), "chat:lobby")
    assert not matches((), "chat:lobby")


def test_no_pattern_is_slow() -> None:
    started = time.process_time()
    assert not matches(("a*" * 100 + "b",), "a" * 1000)
    assert time.process_time() - started < 0.1  # the same as a regular expression does not end


def test_claims_answer_for_both_rights() -> None:
    claims = Claims("u", rooms=("chat:*",), publish=("chat:lobby",))
    assert claims.may_subscribe("chat:x")
    assert not claims.may_publish("chat:x")
    assert claims.may_publish("chat:lobby")


def test_nobody_in_particular_may_nothing() -> None:
    assert not Claims("ann").may_subscribe("chat:lobby")
    assert not Claims("ann").may_publish("chat:lobby")


def test_equal_rights_are_one_object() -> None:
    first, second = (Claims.shared("".join(["u", "1"]), None, ["chat:*", "x"], iter(["chat:*"])) for _ in range(2))
    assert first == Claims("u1", None, ("chat:*", "x"), ("chat:*",))
    assert first.user is second.user
    assert first.rooms is second.rooms
    assert first.publish is second.publish
