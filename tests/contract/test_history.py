"""What every broker promises about reading a room's history (Broker.read), on each kind."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.broker.base import Broker, History, Page, Position
from app.settings import Settings
from tests.support.brokers import ENVELOPE, HISTORY, hearing, until_answered

TEN = History(size=10, ttl=60, meta_ttl=3600)


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with hearing(settings) as (made, _):
        yield made


async def fill(broker: Broker, number: int, history: History = TEN, *, size: int = 0) -> Position:
    """Publishes so many; the envelopes hold their offsets, padded to `size` bytes."""
    for offset in range(1, number + 1):
        last = await broker.publish("room", envelope(offset, size), history=history)
    return last


def envelope(offset: int, size: int = 0) -> bytes:
    return (ENVELOPE + b"%d" % offset).ljust(size, b".")


def offsets(page: Page) -> list[int]:
    return [offset for offset, _ in page.publications]


async def test_it_is_what_was_published_with_its_offsets(broker: Broker) -> None:
    top = await fill(broker, 3)
    page = await broker.read("room", TEN, since=None, limit=100)
    assert page == Page(top, [(1, envelope(1)), (2, envelope(2)), (3, envelope(3))])


async def test_envelopes_come_as_they_were_sent(broker: Broker) -> None:
    odd = ENVELOPE + bytes(range(256)) + b":\r\n:" + "ü€😀".encode()
    await broker.publish("room", odd, history=TEN)
    assert (await broker.read("room", TEN, since=None, limit=1)).publications == [(1, odd)]


#: since, limit, reverse, and which of seven publications that gives.
READS: list[tuple[int | None, int, bool, list[int]]] = [
    (None, 100, False, [1, 2, 3, 4, 5, 6, 7]),
    (None, 3, False, [1, 2, 3]),
    (None, 0, False, []),
    (0, 2, False, [1, 2]),
    (4, 100, False, [5, 6, 7]),
    (4, 2, False, [5, 6]),
    (4, 0, False, []),
    (7, 100, False, []),
    (8, 100, False, []),
    (2**53, 100, False, []),
    (None, 100, True, [7, 6, 5, 4, 3, 2, 1]),
    (None, 3, True, [7, 6, 5]),
    (None, 0, True, []),
    (0, 100, True, []),
    (1, 100, True, []),
    (4, 100, True, [3, 2, 1]),
    (4, 2, True, [3, 2]),
    (8, 2, True, [7, 6]),
    (2**53, 2, True, [7, 6]),
]


async def test_since_limit_and_reverse(broker: Broker) -> None:
    top = await fill(broker, 7)
    for since, limit, reverse, expected in READS:
        page = await broker.read("room", TEN, since=since, limit=limit, reverse=reverse)
        assert (page.top, offsets(page), page.cut) == (top, expected, False), (since, limit, reverse)


@pytest.mark.parametrize("reverse", [False, True])
async def test_long_histories_come_whole_and_in_order(broker: Broker, reverse: bool) -> None:
    """However many steps a broker takes to read one."""
    sixty = History(size=60, ttl=60, meta_ttl=3600)
    await asyncio.gather(*(broker.publish("room", ENVELOPE, history=sixty) for _ in range(70)))
    expected = list(range(70, 10, -1) if reverse else range(11, 71))
    for limit in (1, 24, 25, 26, 50, 59, 60, 61, 2**40):
        page = await broker.read("room", sixty, since=None, limit=limit, reverse=reverse)
        assert offsets(page) == expected[:limit]


class TestBytes:
    """R3: a reader says how much it can take."""

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_no_more_come_than_fit_but_always_the_first(self, broker: Broker, reverse: bool) -> None:
        await fill(broker, 4, size=100)
        for max_bytes, fit, cut in (0, 4, False), (1, 1, True), (199, 1, True), (200, 2, True), (400, 4, False):
            page = await broker.read("room", TEN, since=None, limit=10, max_bytes=max_bytes, reverse=reverse)
            assert offsets(page) == ([4, 3, 2, 1] if reverse else [1, 2, 3, 4])[:fit]
            assert page.cut is cut

    async def test_what_the_limit_has_ended_was_not_cut(self, broker: Broker) -> None:
        await fill(broker, 4, size=100)
        page = await broker.read("room", TEN, since=None, limit=2, max_bytes=200)
        assert (offsets(page), page.cut) == ([1, 2], False)


class TestWhatIsKept:
    """P5"""

    async def test_as_many_as_the_size_says_remain(self, broker: Broker) -> None:
        await fill(broker, 2 * HISTORY.size + 1, HISTORY)
        assert offsets(await broker.read("room", HISTORY, since=None, limit=100)) == [7, 8, 9, 10, 11]
        assert offsets(await broker.read("room", HISTORY, since=2, limit=2)) == [7, 8]

    async def test_another_size_holds_from_the_next_publication_on(self, broker: Broker) -> None:
        await fill(broker, 5)
        await fill(broker, 1, History(size=2, ttl=60, meta_ttl=3600))
        assert offsets(await broker.read("room", TEN, since=None, limit=100)) == [5, 6]

    async def test_what_has_no_history_is_not_kept(self, broker: Broker) -> None:
        """P6: `ephemeral`."""
        await fill(broker, 2)
        await broker.publish("room", ENVELOPE, history=None)
        await broker.publish("room", ENVELOPE, history=None, idempotency_key="k")
        page = await broker.read("room", TEN, since=None, limit=100)
        assert (page.top.offset, offsets(page)) == (2, [1, 2])

    async def test_a_repetition_is_not_kept_again(self, broker: Broker) -> None:
        """P4"""
        for _ in range(2):
            await broker.publish("room", ENVELOPE, history=TEN, idempotency_key="k")
        assert offsets(await broker.read("room", TEN, since=None, limit=100)) == [1]

    async def test_it_ends_some_time_after_the_last_publication_and_the_epoch_goes_on(self, broker: Broker) -> None:
        await fill(broker, 2)
        top = await broker.publish("room", envelope(3), history=History(size=10, ttl=0.05, meta_ttl=3600))

        async def is_gone() -> bool:
            page = await broker.read("room", TEN, since=None, limit=100)
            assert page.top == top
            assert offsets(page) in ([1, 2, 3], [])
            return not page.publications

        await until_answered(is_gone, "the history has ended")
        assert await broker.publish("room", envelope(4), history=TEN) == Position(top.epoch, 4)
        assert offsets(await broker.read("room", TEN, since=None, limit=100)) == [4]

    async def test_rooms_do_not_mix(self, broker: Broker) -> None:
        await fill(broker, 2)
        await broker.publish("other", ENVELOPE + b"other", history=TEN)
        assert (await broker.read("other", TEN, since=None, limit=100)).publications == [(1, ENVELOPE + b"other")]


class TestEpochs:
    """P2, P5"""

    async def test_an_unknown_room_begins_an_epoch_that_stays(self, broker: Broker) -> None:
        page = await broker.read("room", TEN, since=None, limit=100)
        assert page.top.epoch
        assert (page.top.offset, page.publications) == (0, [])
        assert (await broker.read("room", TEN, since=None, limit=0)).top == page.top
        assert await broker.publish("room", ENVELOPE, history=TEN) == Position(page.top.epoch, 1)

    async def test_a_new_epoch_has_nothing_of_the_old_one(self, broker: Broker) -> None:
        """Meta gone, the stream kept (P2)."""
        short = History(size=10, ttl=60, meta_ttl=0.05)
        old = await fill(broker, 3, short)

        async def has_begun_anew() -> bool:
            page = await broker.read("room", short, since=None, limit=100)
            assert (page.top.epoch == old.epoch) == (offsets(page) == [1, 2, 3])
            return page.top.epoch != old.epoch

        # Each read refreshes the time, so look rarely.
        await until_answered(has_begun_anew, "a new epoch", every=0.1)
        new = await broker.publish("room", envelope(1), history=TEN)
        assert (await broker.read("room", TEN, since=None, limit=100)) == Page(new, [(1, envelope(1))])


async def test_a_page_is_of_one_moment(broker: Broker) -> None:
    """R1: whatever is published meanwhile, the newest publication of a page is its top."""

    async def publish() -> None:
        for _ in range(60):
            await broker.publish("room", ENVELOPE, history=HISTORY)

    publishing = asyncio.gather(*(publish() for _ in range(3)))
    read = 0
    while not publishing.done():
        for page in await asyncio.gather(*(broker.read("room", HISTORY, since=None, limit=10) for _ in range(3))):
            top = page.top.offset
            assert offsets(page) == list(range(max(1, top - HISTORY.size + 1), top + 1))
            read += 1
        await asyncio.sleep(0)
    await publishing
    assert read
    assert offsets(await broker.read("room", HISTORY, since=None, limit=10)) == [176, 177, 178, 179, 180]
