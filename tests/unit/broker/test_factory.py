"""Which broker a URL asks for."""

import pytest

from app.broker.factory import create_broker
from app.broker.memory import MemoryBroker
from app.broker.redis import RedisBroker
from app.settings import SettingsError
from tests.support.brokers import settings_for


def test_memory_is_for_one_process() -> None:
    broker = create_broker(settings_for("memory://"), "node")
    assert isinstance(broker, MemoryBroker)
    assert not broker.shared


@pytest.mark.parametrize("url", ["redis://a", "valkey://a", "redis+sentinel://a/m", "redis+cluster://a"])
def test_redis_is_shared(url: str) -> None:
    broker = create_broker(settings_for(url), "node")
    assert isinstance(broker, RedisBroker)
    assert broker.shared
    assert not broker.connected


async def test_a_broker_that_never_started_can_be_stopped() -> None:
    await create_broker(settings_for("redis://a"), "node").stop()


def test_another_scheme_is_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        create_broker(settings_for("nats://a"), "node")
