"""Django Channels with channels_redis: one group, joined at connect, `group_send` for every message.

Channels' own documentation serves with daphne; uvicorn costs less and is what the other peers run on, so it is taken
here in the favour of Channels. For the same reason no session or user middleware stands before the consumer. The layer
is RedisChannelLayer, which the documentation of Channels configures (the package calls its other one, over pub/sub, a
beta). Its capacity is raised from 100: what is above it the layer drops, and says so at level INFO or not at all."""

import os

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

from bench.peers import arguments
from bench.peers.uvicorn_host import serve

GROUP = "bench"
#: Messages that may wait in Redis for this process, and in the process for each consumer.
CAPACITY = 100_000


class Chat(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def receive_json(self, content: dict[str, str]) -> None:
        await self.channel_layer.group_send(GROUP, {"type": "chat.message", "message": content["message"]})

    async def chat_message(self, event: dict[str, str]) -> None:
        await self.send_json({"message": event["message"]})


def main() -> None:
    # redis-py 8 gives up a read after 5 s; the layer waits as long for a message, and every quiet connection would be
    # closed then (a known trap of channels_redis).
    host = {"address": arguments.redis_url(), "socket_timeout": None}
    # A prefix of its own: members that a killed process left behind stay in a group for a day, and cost.
    config = {"hosts": [host], "capacity": CAPACITY, "prefix": f"bench-{os.getpid()}"}
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config}
    settings.configure(CHANNEL_LAYERS={"default": layer})
    django.setup()
    serve(ProtocolTypeRouter({"websocket": URLRouter([path("ws/", Chat.as_asgi())])}))


if __name__ == "__main__":
    main()
