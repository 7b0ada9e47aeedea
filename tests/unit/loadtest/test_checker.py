"""What a client missed, got twice or out of order, told from what it was told."""

import pytest

from loadtest.checker import Findings, Membership, newest


def with_history(offset: int = 0) -> Membership:
    member = Membership()
    member.begin("e1", offset, None)
    return member


def hear(member: Membership, *offsets: int) -> None:
    for offset in offsets:
        member.hear(offset, "line", offset)


def without_history() -> Membership:
    member = Membership()
    member.begin("", 0, None)
    return member


def say(member: Membership, line: str, *numbers: int) -> None:
    for number in numbers:
        member.hear(0, line, number)


class TestARoomWithHistory:
    def test_all_in_order_is_no_finding(self) -> None:
        member = with_history(41)
        hear(member, 42, 43, 44)
        assert member.has_reached(44)
        assert not member.has_reached(45)
        assert member.is_whole
        assert member.end(44) == Findings()

    def test_what_is_missing_in_the_middle_is_lost(self) -> None:
        member = with_history()
        hear(member, 1, 4)
        assert member.has_reached(4)
        assert not member.is_whole
        assert member.end(4) == Findings(lost=2)

    def test_what_is_missing_at_the_end_is_lost(self) -> None:
        member = with_history()
        hear(member, 1)
        assert member.end(3) == Findings(lost=2)

    def test_who_heard_nothing_lost_everything_after_it_came(self) -> None:
        assert with_history(7).end(10) == Findings(lost=3)

    def test_a_server_that_is_silent_about_an_absence_excuses_nothing(self) -> None:
        member = with_history()
        hear(member, 1)
        member.begin("e1", 3, None)
        hear(member, 4)
        assert member.end(4) == Findings(lost=2)

    def test_twice_is_repeated(self) -> None:
        member = with_history()
        hear(member, 1, 2, 2, 1)
        assert member.end(2) == Findings(repeated=2)

    def test_late_is_out_of_order_and_not_lost(self) -> None:
        member = with_history()
        hear(member, 1, 3, 2)
        assert member.end(3) == Findings(disordered=1)

    def test_what_was_missed_while_away_follows(self) -> None:
        member = with_history()
        hear(member, 1)
        member.begin("e1", 1, True)
        hear(member, 2, 3, 4)
        assert member.end(4) == Findings(recovered=1)

    def test_what_was_missed_while_away_and_did_not_follow_is_lost(self) -> None:
        member = with_history()
        hear(member, 1)
        member.begin("e1", 1, True)
        hear(member, 4)
        assert member.end(4) == Findings(recovered=1, lost=2)

    def test_recovered_at_a_later_position_is_a_loss(self) -> None:
        member = with_history()
        hear(member, 1)
        member.begin("e1", 3, True)
        assert member.end(3) == Findings(recovered=1, lost=2)

    def test_what_the_client_was_told_of_is_not_lost(self) -> None:
        member = with_history()
        hear(member, 1)
        member.begin("e2", 100, False)
        hear(member, 101)
        member.insufficient("e2", 200)
        hear(member, 201)
        assert member.end(201) == Findings(told=2)

    def test_what_was_missing_before_it_was_told_is_lost(self) -> None:
        member = with_history()
        hear(member, 3)
        member.insufficient("e1", 10)
        assert member.end(10) == Findings(told=1, lost=2)

    def test_what_was_left_out_and_said_so_is_not_lost(self) -> None:
        member = with_history()
        hear(member, 1)
        member.hear(5, "line", 5, skipped=3)
        assert member.end(5) == Findings(skipped=3)

    def test_a_position_without_data_counts_as_heard(self) -> None:
        member = with_history()
        member.hear(1, "", 0)
        assert member.end(1) == Findings()


class TestARoomWithoutHistory:
    def test_each_publisher_is_followed_by_itself(self) -> None:
        member = without_history()
        say(member, "a", 5, 6)
        say(member, "b", 1)
        say(member, "a", 7)
        assert member.end(0) == Findings()

    def test_what_is_missing_between_two_is_lost(self) -> None:
        member = without_history()
        say(member, "a", 5, 8)
        assert member.end(0) == Findings(lost=2)

    def test_twice_and_late(self) -> None:
        member = without_history()
        say(member, "a", 1, 3, 3, 2)
        assert member.end(0) == Findings(repeated=1, disordered=1)

    def test_who_was_away_is_entitled_to_nothing(self) -> None:
        member = without_history()
        say(member, "a", 1)
        member.begin("", 0, None)
        say(member, "a", 9)
        assert member.end(0) == Findings()


@pytest.mark.parametrize(("epoch", "expected"), [("e1", 9), ("e2", 5)])
def test_what_a_publisher_was_answered_must_be_there(epoch: str, expected: int) -> None:
    """The room itself may say too little: that would be a loss, unless its epoch is another one."""
    assert newest({"r": ("e1", 9)}, "r", epoch, 5) == expected


def test_an_older_answer_changes_nothing() -> None:
    assert newest({"r": ("e1", 3)}, "r", "e1", 5) == 5
    assert newest({}, "r", "e1", 5) == 5
