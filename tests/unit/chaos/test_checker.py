"""Each verdict of the chaos tests' checker can be reached, and a good run reaches none."""

from collections.abc import Sequence

from app.broker.base import Position
from tests.chaos.checker import Flaw, Verdict, check, summary
from tests.chaos.records import Began, Closed, Event, Heard, Opened, Outcome, Publication

ROOM = "kept:x"


def accepted(*offsets: int, epoch: str = "a", base: int = 0) -> list[Publication]:
    """Publications with ids base + offset."""
    return [Publication(base + offset, ROOM, 0.0, Outcome.ACCEPTED, Position(epoch, offset)) for offset in offsets]


def began(offset: int, epoch: str = "a", recovered: bool | None = None) -> Began:
    return Began(0.0, ROOM, epoch, offset, recovered)


def heard(*offsets: int, base: int = 0) -> list[Event]:
    return [Heard(0.0, ROOM, offset, base + offset) for offset in offsets]


def told(offset: int, epoch: str = "a") -> Began:
    """`insufficient`, or `recovered: false`."""
    return began(offset, epoch, recovered=False)


def judged(
    journal: Sequence[Event], publications: Sequence[Publication] | None = None, top: tuple[str, int] = ("a", 5)
) -> Verdict:
    publications = accepted(1, 2, 3, 4, 5) if publications is None else publications
    return check(publications, {"ann": journal}, {ROOM: Position(*top)})


def found(verdict: Verdict) -> dict[Flaw, int]:
    return {flaw: verdict.count(flaw) for flaw in Flaw if verdict.count(flaw)}


class TestAllIsWell:
    def test_everything_once_and_in_order(self) -> None:
        verdict = judged([began(0), *heard(1, 2, 3, 4, 5)])
        assert found(verdict) == {}
        assert (verdict.told, verdict.affected, verdict.changed_rooms) == (0, 0, set())

    def test_nothing_before_its_beginning_is_expected(self) -> None:
        assert found(judged([began(3), *heard(4, 5)])) == {}

    def test_a_reconnect_that_recovers(self) -> None:
        away: list[Event] = [Closed(1.0, 1006, "node"), began(2, recovered=True), Opened(2.0)]
        assert found(judged([began(0), *heard(1, 2), *away, *heard(3, 4, 5)])) == {}

    def test_an_unknown_publication_that_appears_once_or_not(self) -> None:
        unknown = Publication(3, ROOM, 0.0, Outcome.UNKNOWN)
        assert found(judged([began(0), *heard(1, 2, 3, 4, 5)], [*accepted(1, 2, 4, 5), unknown])) == {}
        assert found(judged([began(0), *heard(1, 2)], [*accepted(1, 2), unknown], top=("a", 2))) == {}

    def test_another_epoch_that_was_told_by_a_reply(self) -> None:
        publications = accepted(1, 2, 3) + accepted(1, 2, epoch="b", base=100)
        journal = [began(0), *heard(1, 2), began(1, "b", recovered=False), *heard(2, base=100)]
        verdict = judged(journal, publications, top=("b", 2))
        assert found(verdict) == {}
        assert (verdict.told, verdict.affected, verdict.changed_rooms) == (1, 1, {ROOM})

    def test_another_epoch_that_was_told_by_an_event(self) -> None:
        publications = accepted(1, 2, 3) + accepted(1, 2, epoch="b", base=100)
        journal = [began(0), *heard(1, 2), told(0, "b"), *heard(1, 2, base=100)]
        assert found(judged(journal, publications, top=("b", 2))) == {}


class TestLost:
    def test_a_jump(self) -> None:
        verdict = judged([began(0), *heard(1, 4, 5)])
        assert found(verdict) == {Flaw.LOST: 2}
        assert "ann in kept:x: lost offsets 2-3 of epoch a" in summary(verdict.findings)

    def test_the_last_ones(self) -> None:
        assert found(judged([began(0), *heard(1, 2)])) == {Flaw.LOST: 3}

    def test_a_recovery_that_begins_too_late(self) -> None:
        assert found(judged([began(0), *heard(1, 2), began(4, recovered=True), *heard(5)])) == {Flaw.LOST: 2}

    def test_a_jump_is_not_excused_by_being_told_later(self) -> None:
        journal = [began(0), *heard(1, 3), told(5, "b")]
        assert found(judged(journal, top=("b", 5))) == {Flaw.LOST: 1}

    def test_told_and_then_nothing_more(self) -> None:
        publications = accepted(1, 2, 3) + accepted(1, 2, epoch="b", base=100)
        assert found(judged([began(0), *heard(1, 2), told(0, "b")], publications, top=("b", 2))) == {Flaw.LOST: 2}


class TestRepeated:
    def test_the_same_offset_again(self) -> None:
        assert found(judged([began(0), *heard(1, 2, 2, 3, 4, 5)])) == {Flaw.REPEATED: 1}

    def test_a_recovery_that_begins_too_early(self) -> None:
        journal = [began(0), *heard(1, 2, 3), began(1, recovered=True), *heard(2, 3, 4, 5)]
        assert found(judged(journal)) == {Flaw.REPEATED: 2}

    def test_one_publication_at_two_offsets(self) -> None:
        journal = [began(0), *heard(1, 2, 3, 4), Heard(0.0, ROOM, 5, 4)]
        assert found(judged(journal, accepted(1, 2, 3, 4))) == {Flaw.REPEATED: 1}


class TestOutOfOrder:
    def test_what_was_missing_comes_later(self) -> None:
        assert found(judged([began(0), *heard(1, 3, 2, 4, 5)])) == {Flaw.OUT_OF_ORDER: 1}

    def test_what_was_before_its_beginning(self) -> None:
        assert found(judged([began(3), *heard(3, 4, 5)])) == {Flaw.OUT_OF_ORDER: 1}


class TestReused:
    def test_other_data_at_a_position_that_was_confirmed(self) -> None:
        assert found(judged([began(0), *heard(1, 2, 3, 4), Heard(0.0, ROOM, 5, 99)])) == {Flaw.REUSED: 1}

    def test_two_confirmations_of_one_position(self) -> None:
        publications = [*accepted(1, 2, 3, 4, 5), *accepted(5, base=100)]
        assert found(judged([began(0), *heard(1, 2, 3, 4, 5)], publications)) == {Flaw.REUSED: 1}

    def test_two_clients_heard_different_things(self) -> None:
        journals = {
            "ann": [began(0), *heard(1)],
            "bob": [began(0), Heard(0.0, ROOM, 1, 99)],
        }
        assert found(check([], journals, {ROOM: Position("a", 1)})) == {Flaw.REUSED: 1}


class TestUntold:
    def test_a_client_that_stays_in_the_old_epoch(self) -> None:
        verdict = judged([began(0), *heard(1, 2)], top=("b", 5))
        assert found(verdict) == {Flaw.UNTOLD: 1}
        assert (verdict.told, verdict.affected) == (0, 1)

    def test_recovered_in_another_epoch(self) -> None:
        journal = [began(0), *heard(1, 2), began(2, "b", recovered=True)]
        assert found(judged(journal, accepted(1, 2), top=("b", 2))) == {Flaw.UNTOLD: 1}

    def test_began_anew_for_no_reason(self) -> None:
        assert found(judged([began(0), *heard(1, 2), began(4), *heard(5)])) == {Flaw.UNTOLD: 1}


def test_told_although_nothing_was_lost() -> None:
    assert found(judged([began(0), *heard(1, 2), began(2, recovered=False), *heard(3, 4, 5)])) == {Flaw.NEEDLESS: 1}


def test_a_refused_publication_that_was_heard() -> None:
    refused = Publication(5, ROOM, 0.0, Outcome.REFUSED)
    assert found(judged([began(0), *heard(1, 2, 3, 4, 5)], [*accepted(1, 2, 3, 4), refused])) == {Flaw.GHOST: 1}


def test_a_summary_shows_some_and_counts_all() -> None:
    text = summary(judged([began(0), *heard(1, 1, 1, 1)]).findings, most=2)
    assert "3 findings: repeated" in text
    assert text.endswith("...")
