"""What counts as a publication that the broker did not take, by which an alert wakes somebody."""

import pytest

from app.broker.base import BrokerUnavailable
from app.codes import CommandError
from tests.support.in_process import Node


async def test_a_broker_that_is_away_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Node() as node:

        async def away(*_: object, **__: object) -> None:
            raise BrokerUnavailable("away")

        monkeypatch.setattr(node.broker, "publish", away)
        with pytest.raises(BrokerUnavailable):
            await node.gateway.publish("chat:x", 1)
        assert node.gateway.counters.broker_publish_errors == 1


async def test_a_key_that_was_used_with_other_data_is_the_publishers_mistake() -> None:
    async with Node(namespaces={"chat": {"history_size": 5}}) as node:
        await node.gateway.publish("chat:x", 1, idempotency_key="k")
        with pytest.raises(CommandError, match="107"):
            await node.gateway.publish("chat:x", 2, idempotency_key="k")
        assert node.gateway.counters.broker_publish_errors == 0
