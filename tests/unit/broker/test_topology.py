"""Slots of keys, and asking servers that are away."""

import pytest

from app.broker.topology import NotFound, find_master, find_slots, slot_of
from app.broker.url import parse


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        # Answers of `CLUSTER KEYSLOT`.
        (b"foo", 12182),
        (b"123456789", 12739),
        (b"", 0),
        (b"a{foo}b", 12182),
        (b"{foo}{bar}", 12182),
        (b"{}foo", 9500),
        (b"foo{", 7673),
        (b"}foo{bar}", 5061),
        (b"{{a}}", 10276),
    ],
)
def test_a_slot_is_that_of_the_hash_tag(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


async def test_nobody_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        await find_master(parse("redis+sentinel://127.0.0.1:1,127.0.0.1:2/m"), 1)
    with pytest.raises(NotFound):
        await find_slots(parse("redis+cluster://127.0.0.1:1"), [], 1)
