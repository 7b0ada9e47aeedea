"""The broker that the settings ask for."""

from app.broker.base import Broker
from app.broker.memory import MemoryBroker
from app.broker.redis import RedisBroker
from app.broker.url import parse
from app.settings import Settings


def create_broker(settings: Settings, node: str) -> Broker:
    """A broker for the node of this id, not started yet. Raises SettingsError where the URL cannot work (A5)."""
    if settings.broker_url == "memory://":
        return MemoryBroker(settings)
    return RedisBroker(parse(settings.broker_url), settings, node)
