"""What history, coming back with a position, and presence cost the node and Redis."""

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from websockets.sync.client import connect

from bench.dialect import Line, text_of
from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.product import bearer, product
from bench.server import Server
from local.ports import HOST

SIZES = (0, 10, 100, 1000)
PAYLOAD = 200
PUBLICATIONS = 2000
#: Publications that are under way at any time.
WINDOW = 16

#: Clients that come back one after the other; and those that come back at once.
RETURNS = 200
CROWD = 1000

#: Sessions that enter rooms whose members are kept.
ENTERING = 500
#: What the node may tell the broker after its reply, in seconds.
AFTERWARDS = 0.3

#: What `--quick` leaves out.
THOROUGH = {"history 10", "history 1,000", "nothing missed", "no presence, a room each", "presence, a room each"}

_NAMESPACES = {f"KEPT{size}__HISTORY_SIZE": str(size) for size in SIZES} | {"HALL__PRESENCE": "1"}


def run(bench: Bench) -> None:
    with ExitStack() as stack:
        env = {f"CARILLON_NAMESPACES__{option}": value for option, value in _NAMESPACES.items()}
        server = stack.enter_context(product(bench.folder, env=env))
        _publishing(stack, bench, server)
        _coming_back(stack, bench, server)
        _entering(stack, bench, server)


def _publishing(stack: ExitStack, bench: Bench, server: Server) -> None:
    """One member, so that nearly all of it is the publication: accepted, kept, heard, told to its publisher."""
    work: dict[str, Callable[[], Figures]] = {}
    for size in SIZES:
        one = loaded(stack, bench, _in_room(server, f"kept{size}:publishing")).members(1).publisher()
        template = one.server.dialect.publish(text_of(PAYLOAD))
        one.load.publish(size + 1, template, window=WINDOW)  # from here on the oldest gives way
        work[f"history {size:,}"] = partial(one.published, PUBLICATIONS, template, members=1, window=WINDOW)
    in_turn(bench, "publication", {"payload": PAYLOAD, "under way": WINDOW}, _asked_for(bench, work))


def _coming_back(stack: ExitStack, bench: Bench, server: Server) -> None:
    """Sessions join a room with the position from which so many publications are missing."""
    room = _KeptRoom(server, "kept1000:returning")
    publisher = loaded(stack, bench, _in_room(server, room.name)).members(1).publisher()
    publisher.load.publish(CROWD, publisher.server.dialect.publish(text_of(PAYLOAD)), window=WINDOW)
    top = room.top()
    one = loaded(stack, bench, server)
    cases = {"without a position": None, "nothing missed": 0, "10 missed": 10, "100 missed": 100}
    for sessions, at_once in ((RETURNS, 1), (CROWD, CROWD)):
        work = {
            name: partial(_come_back, one, room, [room.line(n, top, missed) for n in range(sessions)], at_once)
            for name, missed in cases.items()
        }
        in_turn(bench, "coming back", {"sessions": sessions, "at once": at_once}, _asked_for(bench, work))


def _come_back(one: Loaded, room: "_KeptRoom", lines: Sequence[Line], at_once: int) -> Figures:
    """The handshake and everything until the last missed publication is there."""
    reads, began = room.reads(), time.monotonic()
    figures = one.cost(len(lines), lambda: one.load.connect("idle", lines, in_flight=at_once))
    figures |= {"seconds": time.monotonic() - began, "reads": room.reads() - reads}
    one.load.close()
    return figures


def _entering(stack: ExitStack, bench: Bench, server: Server) -> None:
    """Sessions join rooms, with what is told to Redis of it."""
    one = loaded(stack, bench, server)

    def enter(lines: Sequence[Line]) -> Figures:
        def work() -> None:
            one.idle(lines)
            one.load.run(AFTERWARDS)

        figures = one.cost(len(lines), work)
        one.load.close()
        one.load.run(AFTERWARDS)
        return figures

    def lines(room: str) -> list[Line]:
        return [_subscriber(number, room.format(number)) for number in range(ENTERING)]

    work = {
        "no presence, one room": partial(enter, lines("quiet")),
        "presence, one room": partial(enter, lines("hall:all")),
        "no presence, a room each": partial(enter, lines("quiet-{}")),
        "presence, a room each": partial(enter, lines("hall:{}")),
    }
    in_turn(bench, "presence", {"sessions": ENTERING}, _asked_for(bench, work))


def _asked_for(bench: Bench, work: Mapping[str, Callable[[], Figures]]) -> dict[str, Callable[[], Figures]]:
    return {name: do for name, do in work.items() if not (bench.quick and name in THOROUGH)}


@dataclass(frozen=True)
class _KeptRoom:
    """A room with history, as those who come back to it see it."""

    server: Server
    name: str

    def top(self) -> tuple[str, int]:
        """The newest position."""
        headers = dict([bearer("looks").split(": ", 1)])
        with connect(f"ws://{HOST}:{self.server.port}/ws", additional_headers=headers, proxy=None) as socket_:
            socket_.recv()  # welcome
            socket_.send(json.dumps({"type": "subscribe", "id": 1, "room": self.name}))
            reply = json.loads(socket_.recv())
        return reply["epoch"], reply["offset"]

    def line(self, number: int, top: tuple[str, int], missed: int | None) -> Line:
        """Waits for the last publication that is missing."""
        epoch, offset = top
        if missed is None:
            return _subscriber(number, self.name)
        since = {"epoch": epoch, "offset": offset - missed}
        return _subscriber(number, self.name, {"since": since}, f'"offset":{offset},')

    def reads(self) -> int:
        """How many scripts Redis has run so far; where nobody publishes, they are reads of histories."""
        return _calls(self.server.redis_url, "evalsha")


def _subscriber(number: int, room: str, more: Mapping[str, object] | None = None, answer: str = '"id":1') -> Line:
    command = {"type": "subscribe", "id": 1, "room": room, **(more or {})}
    return Line("/ws", ((json.dumps(command, separators=(",", ":")), answer),), (bearer(f"user-{number}"),))


def _in_room(server: Server, room: str) -> Server:
    """The same server, whose members and publisher are in that room."""

    def publish(text: str) -> str:
        return json.dumps({"type": "publish", "room": room, "data": text}, separators=(",", ":"))

    dialect = replace(server.dialect, member=lambda number: _subscriber(number, room), publish=publish)
    return replace(server, dialect=dialect)


def _calls(redis_url: str, command: str) -> int:
    """How often Redis was given a command since its start."""
    with socket.create_connection((HOST, urlsplit(redis_url).port or 0)) as redis:
        redis.sendall(b"INFO commandstats\r\n")
        with redis.makefile("rb") as answer:
            text = answer.read(int(answer.readline()[1:])).decode()
    prefix = f"cmdstat_{command}:calls="
    line = next((line for line in text.splitlines() if line.startswith(prefix)), f"{prefix}0,")
    return int(line.removeprefix(prefix).partition(",")[0])
