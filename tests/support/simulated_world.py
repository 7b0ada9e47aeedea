"""Two nodes, their simulated Redis, and clients that check what they get: the world of the model test of recovery."""

from collections.abc import Callable
from typing import Any

from app.auth.permissions import Claims
from app.broker.base import Position
from app.gateway.gateway import Gateway
from app.gateway.hook_calls import HookCalls
from app.settings import load
from app.wire.publication import unpack
from tests.support.in_process import Peer
from tests.support.simulated_broker import Heard, Request, SimulatedBroker, SimulatedRedis
from tests.support.virtual_loop import VirtualLoop

OUTBOX_BYTES = 4000
NODES = 2
MEMBERS = 3

#: How rooms keep and send: room for everything; for little; in windows, in which positions run ahead of what was sent.
NAMESPACES: dict[str, dict[str, Any]] = {
    "kept": {"history_size": 200},
    "short": {"history_size": 3},
    "windowed": {"history_size": 200, "coalesce_ms": 50},
}
SETTINGS = load(
    internal_port=0,
    ping_interval=0,
    position_check=0,
    unsubscribe_delay=1,
    outbox_bytes=OUTBOX_BYTES,
    message_rate=0,
    native_send=False,
    namespaces={name: options | {"echo": True} for name, options in NAMESPACES.items()},
)

#: Turns of the event loop after which whatever was begun waits again.
ENOUGH = 25


class Published:
    """All publications, in the order in which the broker took them: the n-th has the data n."""

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self.sizes: list[int] = []
        self.unreadable: set[int] = set()
        #: By position; the beginning of an epoch is there too, as what came before it.
        self.numbers: dict[tuple[str, int], int] = {}

    def number(self, epoch: str, offset: int) -> int:
        """The last one that somebody at this position has seen."""
        return self.numbers.get((epoch, offset), -1)


class Member:
    """A client as an SDK is one, which checks what it gets."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.peer: Peer | None = None
        self.node = 0
        #: Its subscription, as the client knows it.
        self.subscribed = False
        #: The subscribe command that is not answered yet.
        self.asked: dict[str, Any] | None = None
        #: What it would come back with; all that it could have been cut off at.
        self.position: tuple[str, int] | None = None
        self.been_at: list[tuple[str, int]] = []
        #: The epoch of what it receives. Unsure after `insufficient`: any later publication may be next.
        self.epoch = ""
        self.sure = False
        self.last = -1
        #: How often it was too slow: after the second time nothing need be replayed to it (R3).
        self.too_slow = 0
        self._ids = 0

    # -- what it does

    def connect(self, node: int) -> None:
        self.node = node
        gateway = self.world.gateways[node]
        self.peer = self.world.loop.do(lambda: Peer(gateway))
        self.world.finish(gateway.admit(self.peer.session, Claims(self.name, None, ("*",), ("*",))))
        assert [event["type"] for event in self.peer.news()] == ["welcome"]

    def come(self, node: int, back: int = 0) -> None:
        """Comes back to where it was, or so many publications before; these are forgotten."""
        self.connect(node)
        self.subscribe(self.been_at[max(-len(self.been_at), -1 - back)] if self.been_at else None)

    def disconnect(self) -> None:
        peer, self.peer = self.peer, None
        assert peer is not None
        self.world.do(lambda: peer.lose())
        self.subscribed = False
        self.asked = None

    def send(self, type: str, **fields: Any) -> int:
        assert self.peer is not None
        self._ids += 1
        message = {"type": type, "id": self._ids, "room": self.world.room, **fields}
        peer = self.peer
        self.world.do(lambda: peer.send(message))
        return self._ids

    def subscribe(self, since: tuple[str, int] | None) -> None:
        fields = {} if since is None else {"since": {"epoch": since[0], "offset": since[1]}}
        self.asked = {"since": since, "excused": self.world.excuses_for(since), "changes": self.world.changes}
        self.asked["id"] = self.send("subscribe", **fields)

    def publish(self) -> None:
        """Itself; nothing of that waits for the broker."""
        data = {"n": len(self.world.published.positions), "pad": ""}
        self.send("publish", data=data)
        self.world.loop.turn(ENOUGH)
        self.world.note()

    def unsubscribe(self) -> None:
        self.send("unsubscribe")
        self.look()
        self.subscribed = False

    # -- what it sees

    def look(self) -> None:
        if self.peer is None:
            return
        for event in self.peer.news():
            getattr(self, "_" + event["type"])(event)
        if self.peer is not None and self.peer.connection.closed is not None:
            assert self.peer.connection.closed[0] == 3008, "only for being slow is anybody sent away here"
            self.too_slow += 1
            self.disconnect()

    def _goodbye(self, event: dict[str, Any]) -> None:
        assert event["code"] == 3008

    def _error(self, event: dict[str, Any]) -> None:
        assert event["code"] == 100, event
        assert self.asked is not None
        self.asked = None

    def _ok(self, event: dict[str, Any]) -> None:
        asked = self.asked
        if asked is None or event["id"] != asked["id"]:
            return
        self.asked, self.subscribed = None, True
        since, told = asked["since"], event.get("recovered")
        at = (event["epoch"], event["offset"])
        assert (told is None) == (since is None)
        if told:
            assert at == since, "what it has is what it came with"
        elif since is not None:
            excused = (
                self.too_slow > 1
                or asked["excused"]
                or self.world.excuses_for(since)
                or asked["changes"] != self.world.changes
            )
            assert excused, f"{since} could have been recovered"
        self.epoch, self.sure, self.last = at[0], True, self.world.published.number(*at)
        self.position, self.been_at = at, [at]

    def _insufficient(self, event: dict[str, Any]) -> None:
        assert self.world.something_was_lost, "nothing is lost, and it is told so"
        at = (event["epoch"], event["offset"])
        self.epoch, self.sure, self.last = at[0], True, max(self.last, self.world.published.number(*at))
        self.position, self.been_at = at, [at]

    def _message(self, event: dict[str, Any]) -> None:
        assert self.subscribed, "nothing before the reply, and nothing after leaving (O3)"
        assert self.position is not None
        number, offset = event["data"]["n"], event["offset"]
        published = self.world.published.positions[number]
        assert published.offset == offset, "the right data"
        assert number > self.last, "in order, and never twice"
        if self.sure:
            assert (published.epoch, offset) == (self.epoch, self.position[1] + 1), "no silent gap"
        self.epoch, self.sure, self.last = published.epoch, True, number
        self.position = (self.position[0], offset)
        self.been_at.append(self.position)


class World:
    """Two nodes, their Redis, and who is connected to them."""

    def __init__(self, namespace: str) -> None:
        self.loop = VirtualLoop()
        #: Turns of the event loop between two events.
        self.pace = ENOUGH
        self.room = f"{namespace}:x"
        self.options = SETTINGS.namespaces[namespace]
        self.redis = SimulatedRedis()
        self.redis.begin_epoch(self.room)
        self.published = Published()
        self.published.numbers[self.redis.record(self.room).epoch, 0] = -1
        self.something_was_lost = namespace == "short"
        #: How often the room began another epoch, or its history was trimmed.
        self.changes = 0
        #: The last publication that a node did not hear, which it cannot know before a later one.
        self.unheard = dict.fromkeys(range(NODES), -1)
        self.brokers: list[SimulatedBroker] = []
        self.gateways: list[Gateway] = []
        for number in range(NODES):
            broker = self.loop.do(lambda: SimulatedBroker(self.redis))
            hooks = HookCalls(None, SETTINGS.hook_timeout)
            self.brokers.append(broker)
            self.gateways.append(Gateway(SETTINGS, broker, hooks, f"node-{number}"))
        for gateway in self.gateways:
            self.finish(gateway.start())
        self.standing_tasks = len(gateway._tasks)
        self.members = [Member(self, f"m{number}") for number in range(MEMBERS)]

    def finish(self, work: Any) -> Any:
        """Runs something that waits for nothing simulated."""
        task = self.loop.create_task(work)
        self.loop.turn(5)
        return task.result()

    def deliver(self, node: int, index: int) -> None:
        broker = self.brokers[node]
        if self.number_of(broker.coming[index]) > self.unheard[node]:
            self.unheard[node] = -1
        self.do(lambda: broker.deliver(index))

    def drop(self, node: int, index: int) -> None:
        heard = self.brokers[node].coming.pop(index)
        self.unheard[node] = max(self.unheard[node], self.number_of(heard))

    def answer(self, node: int, request: Request) -> None:
        """A subscription is confirmed on a connection that stands."""
        if request.what != "subscribe" or self.brokers[node].is_connected:
            self.do(request.answer)

    def number_of(self, heard: Heard) -> int:
        return self.published.number(heard.position.epoch, heard.position.offset)

    def do(self, action: Callable[[], object]) -> None:
        self.loop.do(action)
        self.loop.turn(self.pace - 1)

    def close(self) -> None:
        stopped = [self.loop.create_task(gateway.stop()) for gateway in self.gateways]
        while not all(task.done() for task in stopped):
            self.loop.advance(0.5)
            self.loop.turn(5)
        for task in stopped:
            task.result()
        self.loop.close()

    def publish(self, pad: int) -> None:
        """The application does, on the first node. It is in history at once; how it reaches nodes is another matter."""
        data = {"n": len(self.published.positions), "pad": "x" * pad}
        self.finish(self.gateways[0].publish(self.room, data))
        self.note()

    def publish_unreadable(self) -> None:
        """A node of a later release does (P6)."""
        history = self.gateways[0].hub.history_of(self.options)
        self.redis.append(self.room, b"2{}", history)
        self.published.unreadable.add(len(self.published.positions))
        self.note()
        self.something_was_lost = True

    def note(self) -> None:
        """What was taken last. Its size is that of the bytes that are kept: how they were written is the sender's."""
        record, number = self.redis.record(self.room), len(self.published.positions)
        readable = number not in self.published.unreadable
        self.published.numbers[record.epoch, record.offset] = number
        self.published.positions.append(record.top)
        self.published.sizes.append(len(unpack(record.kept[-1][1]).data) if readable else 0)

    def begin_epoch(self) -> None:
        self.redis.begin_epoch(self.room)
        self.published.numbers[self.redis.record(self.room).epoch, 0] = len(self.published.positions) - 1
        self.something_was_lost = True
        self.changes += 1

    def trim(self) -> None:
        self.redis.record(self.room).kept.clear()
        self.something_was_lost = True
        self.changes += 1

    def excuses_for(self, since: tuple[str, int] | None) -> bool:
        """Whether that position cannot be recovered from now."""
        if since is None:
            return False
        record = self.redis.record(self.room)
        if since[0] != record.epoch or since[1] > record.offset:
            return True
        missed = range(since[1] + 1, record.offset + 1)
        kept = {offset for offset, _ in record.kept}
        numbers = {self.published.number(record.epoch, offset) for offset in missed}
        size = sum(self.published.sizes[number] for number in numbers)
        return not kept.issuperset(missed) or size > OUTBOX_BYTES // 2 or bool(numbers & self.published.unreadable)

    # -- whom an event can be about

    @property
    def connected(self) -> list[Member]:
        return [member for member in self.members if member.peer is not None]

    @property
    def settled(self) -> list[Member]:
        """Those that wait for no answer."""
        return [member for member in self.connected if member.asked is None]

    @property
    def subscribed(self) -> list[Member]:
        return [member for member in self.connected if member.subscribed]

    def nodes(self, which: Callable[[SimulatedBroker], object]) -> list[int]:
        return [number for number, broker in enumerate(self.brokers) if which(broker)]

    # -- to where nothing waits any more

    def settle(self) -> None:
        """The broker does all that it owes, and clients read."""
        for _ in range(60):
            busy = False
            for broker in self.brokers:
                busy |= self._serve(broker)
                self.loop.turn(ENOUGH)
            for member in self.connected:
                if member.peer.connection.capacity is not None:
                    self.loop.do(member.peer.read_again)
                    busy = True
            self.loop.advance(1.0)
            self.loop.turn(ENOUGH)
            for member in self.members:
                member.look()
            busy |= any(room.uninformed for gateway in self.gateways for room in gateway.hub.rooms.values())
            if not busy and not any(broker.requests for broker in self.brokers):  # time may have made them
                return
        raise AssertionError("it never comes to rest")

    def _serve(self, broker: SimulatedBroker) -> bool:
        busy = bool(broker.requests or broker.coming or broker.untold or not broker.is_connected)
        if not broker.is_connected:
            self.loop.do(broker.come_back)
        if broker.untold:
            self.loop.do(broker.tell_restored)
        for request in tuple(broker.requests):
            self.loop.do(request.answer)
        while broker.coming:
            self.deliver(self.brokers.index(broker), 0)
        return busy
