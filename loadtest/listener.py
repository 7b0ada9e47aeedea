"""One client in one room: comes back whenever its connection ends, says where it was, counts what it did not get."""

import random
from time import perf_counter, time
from typing import ClassVar

from gevent import sleep, spawn, spawn_later
from gevent.event import AsyncResult, Event
from gevent.timeout import Timeout
from locust import User, task

from loadtest.checker import Membership, newest
from loadtest.connection import Connection, Ended, Message
from loadtest.latency import CATCH_UP, measure
from loadtest.share import LINGER, Share
from loadtest.tokens import token

#: Seconds: the longest wait before the first attempt to come back, doubled with each; and the longest of all.
BACKOFF_FIRST, BACKOFF_MAX = 0.2, 5.0
PUBLISH_TIMEOUT = 10.0


class Listener(User):
    """A Locust user; `share` is set once for each process, by the locustfile."""

    abstract = True
    share: ClassVar[Share]
    scenario: ClassVar[str]

    def on_start(self) -> None:
        self.room = self._room(self.share.seat(self.scenario))
        self._member = Membership()
        self._connection: Connection | None = None
        self._token = token(self.share.plan, f"load-{self.share.number}-{self.share.figures.clients}")
        self._was_in = False
        self._back_since = 0.0
        self._comes_at_once = False
        self._asked: dict[int, AsyncResult[Message | None]] = {}
        #: The id of the question for the room's newest position, and the answer.
        self._position_id = 0
        self._top: int | None = None
        self._is_done = False
        self.share.join(self)

    def _room(self, seat: int) -> str:
        raise NotImplementedError

    @property
    def _is_in(self) -> bool:
        return self._connection is not None

    def _speak(self) -> None:
        """Runs beside the listening, from the first time in the room until publishing ends."""

    @task
    def live(self) -> None:
        while not self._is_done:
            try:
                self._come()
                self._listen()
            except Ended as ended:
                self._drop(ended.reason)
        self._leave()
        Event().wait()  # until Locust ends it

    def on_stop(self) -> None:
        self._leave()

    # Coming and going

    def _come(self) -> None:
        """Returns in the room. Raises Ended where the run ends before."""
        began, attempts = perf_counter(), 0
        while not self._try():
            attempts += 1
            sleep(random.random() * min(BACKOFF_MAX, BACKOFF_FIRST * 2**attempts))
            if self.share.gave_up:
                self._be_absent()
                raise Ended("over")
        self._record("reconnect" if self._was_in else "connect", (perf_counter() - began) * 1000)
        if self._was_in:
            self._back_since = time()
        else:
            spawn(self._speak)
        self._was_in = True
        if self.share.is_complete:
            self._ask_position()

    def _try(self) -> bool:
        member, connection = self._member, None
        try:
            connection = Connection(self.share.plan.ws_url, self._token)
            since = (member.epoch or "", member.offset) if member.has_history else None
            reply = connection.enter(self.room, since)
        except Ended as ended:
            self.share.figures.attempts[ended.reason] += 1
            if connection is not None:
                connection.close()
            return False
        member.begin(reply["epoch"], reply["offset"], reply.get("recovered"))
        self._connection = connection
        return True

    def _drop(self, reason: str) -> None:
        """A connection has ended by itself, or was cut."""
        if self._connection is not None and not self._is_done and not self._comes_at_once:
            self.share.figures.closes[reason] += 1
        self._leave()
        for waiting in self._asked.values():
            waiting.set(None)
        self._asked.clear()
        if not self._comes_at_once and not self._is_done:
            sleep(random.random() * BACKOFF_FIRST)
        self._comes_at_once = False

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def cut(self) -> None:
        """A storm, for those who are in one."""

    def _cut(self) -> None:
        if self._connection is not None:
            self.share.figures.cut += 1
            self._comes_at_once = True
            self._connection.abort()

    # Listening

    def _listen(self) -> None:
        assert self._connection is not None
        while not self._is_done:
            self._take(self._connection.receive())

    def _take(self, message: Message) -> None:
        kind, id = message["type"], message.get("id", 0)
        if kind == "message":
            self._hear(message)
        elif kind == "insufficient":
            self._member.insufficient(message.get("epoch", ""), message.get("offset", 0))
        elif kind == "unsubscribed":
            raise Ended(kind)
        elif id in self._asked:
            self._asked.pop(id).set(message)
        elif id == self._position_id and kind == "ok":
            self._top = newest(self.share.tops, self.room, message["epoch"], message["offset"])
        if self._top is not None and not self._is_done and self._member.has_reached(self._top):
            if self._member.is_whole:
                self._finish()
            else:
                spawn_later(LINGER, self._finish)  # it would have come before: this is for what is out of order

    def _hear(self, message: Message) -> None:
        data, offset, skipped = message.get("data"), message.get("offset", 0), message.get("skipped", 0)
        if not isinstance(data, dict) or "line" not in data:  # the position of our own one, or somebody else's
            self._member.hear(offset, "", 0, skipped)
            return
        self._member.hear(offset, data["line"], data["number"], skipped)
        latency = measure(data["sent"], data["late"], time(), self._back_since)
        figures = self.share.figures
        figures.delivered += 1
        figures.caught_up += latency.kind == CATCH_UP
        figures.clock += latency.early
        self._record(latency.kind, latency.ms, len(data["pad"]))

    def _ask(self, type: str, **fields: object) -> Message | None:
        """A command and its reply, from another greenlet than the listening one; None: no reply came."""
        assert self._connection is not None
        answer: AsyncResult[Message | None] = AsyncResult()
        try:
            id = self._connection.send(type, **fields)
        except Ended:
            return None
        self._asked[id] = answer
        try:
            reply: Message | None = answer.get(timeout=PUBLISH_TIMEOUT)
            return reply
        except Timeout:
            return None
        finally:
            self._asked.pop(id, None)

    def _record(self, what: str, ms: float, size: int = 0, failure: str = "") -> None:
        self.share.record(f"{self.scenario} {what}", ms, size, failure)

    # The end

    def settle(self) -> None:
        """Finds out how much there is to have; from then on `live` ends when it has all of it."""
        if self._connection is None:
            return  # `_come` asks
        if self._member.has_history:
            self._ask_position()
        else:
            self._finish()

    def _ask_position(self) -> None:
        try:
            if self._connection is not None:
                self._position_id = self._connection.send("history", room=self.room, limit=0)
        except Ended:
            return  # `_listen` notices, and `_come` asks again

    def give_up(self) -> None:
        """The time is over: what is missing now is lost."""
        if self._is_done:
            return
        if self._connection is not None and self._top is not None:
            self._finish()
        elif self._connection is not None:
            self._be_absent()

    def _finish(self) -> None:
        if self._is_done:
            return
        self._is_done = True
        findings = self._member.end(self._top or 0)
        figures = self.share.figures
        figures.take(findings)
        figures.settled += 1
        figures.with_history += self._member.has_history
        for count, what in (
            (findings.lost, "lost"),
            (findings.repeated, "repeated"),
            (findings.disordered, "out of order"),
        ):
            if count:
                self._record("delivery", 0, failure=f"a client had publications {what}")
        self._wake()

    def _be_absent(self) -> None:
        if self._is_done:
            return
        self._is_done = True
        self.share.figures.absent += 1
        self._record("connect", 0, failure="a client was not there at the end")
        self._wake()

    def _wake(self) -> None:
        """The listening greenlet may wait for a message that does not come."""
        if self._connection is not None:
            self._connection.abort()
