"""The Locust users of the three scenarios, and those who publish over HTTP."""

import random
from time import perf_counter, time
from typing import Any, ClassVar
from uuid import uuid4

from gevent.event import Event
from locust import HttpUser, task

from loadtest.latency import Pace
from loadtest.listener import Listener
from loadtest.share import Share

API_TIMEOUT = 10.0


class Line:
    """What one publisher puts into one room. The number rises with what was accepted; who does not know an outcome
    begins another line: so a number that is missing in a line is always of something that was accepted."""

    def __init__(self, payload: int) -> None:
        self._pad = "x" * payload
        self.begin()

    def begin(self) -> None:
        self._name, self._number = uuid4().hex[:12], 1

    def accepted(self) -> None:
        self._number += 1

    def data(self, late: float) -> dict[str, Any]:
        return {"line": self._name, "number": self._number, "sent": time(), "late": late, "pad": self._pad}


class ChatUser(Listener):
    """Speaks and listens in a room of `room_size`; the rooms of a process are its own."""

    scenario = "chat"

    def _room(self, seat: int) -> str:
        return self.share.plan.room(self.scenario, self.share.number, seat // self.share.plan.room_size)

    def _speak(self) -> None:
        share, line = self.share, Line(self.share.plan.payload)
        every = share.plan.clients_of(self.scenario) / share.plan.rate_of(self.scenario)
        pace = Pace(every, perf_counter() + random.random() * every)
        for late in share.due(pace):
            if self._is_in:
                self._publish(line, late)

    def _publish(self, line: Line, late: float) -> None:
        began = perf_counter()
        answer = self._ask("publish", room=self.room, data=line.data(late))
        figures, ms = self.share.figures, (perf_counter() - began) * 1000
        if answer is None:
            figures.unknown += 1
            line.begin()
        elif answer["type"] == "ok":
            line.accepted()
            self.share.accepted(self.room, answer["epoch"], answer["offset"])
            self._record("publish", ms)
        elif answer.get("temporary"):
            figures.unknown += 1  # 100: it may have been published
            line.begin()
            self._record("publish", ms, failure=f"error {answer['code']}")
        else:
            figures.refused += 1
            self._record("publish", ms, failure=f"error {answer['code']}")


class BroadcastListener(Listener):
    """All in one room, in which a few publish over HTTP."""

    scenario = "broadcast"

    def _room(self, seat: int) -> str:
        return self.share.plan.room(self.scenario, 0)


class StormListener(Listener):
    """Is cut now and then, together with all others, and comes back at once."""

    scenario = "reconnect_storm"

    def _room(self, seat: int) -> str:
        return self.share.plan.room(self.scenario, (self.share.number + seat) % self.share.plan.storm_rooms())

    def cut(self) -> None:
        self._cut()


class Publisher(HttpUser):
    """Publishes into the rooms of `broadcast` and `reconnect_storm`, as a backend does."""

    share: ClassVar[Share]

    def on_start(self) -> None:
        plan = self.share.plan
        self.client.trust_env = False
        self._rooms = plan.rooms_over_http()
        self._lines = {room: Line(plan.payload) for room, _ in self._rooms}
        self._every = plan.publishers / sum(rate for _, rate in self._rooms)
        self._key = {"X-API-Key": plan.api_key}

    @task
    def live(self) -> None:
        pace = Pace(self._every, perf_counter() + random.random() * self._every)
        rooms, rates = zip(*self._rooms, strict=True)
        for late in self.share.due(pace):
            [room] = random.choices(rooms, rates)
            self._publish(room, late)
        Event().wait()  # until Locust ends it

    def _publish(self, room: str, late: float) -> None:
        line, figures = self._lines[room], self.share.figures
        body = {"room": room, "data": line.data(late)}
        url = f"{self.share.plan.api_url}/api/publish"
        name = "/api/publish"
        with self.client.post(
            url, json=body, headers=self._key, timeout=API_TIMEOUT, name=name, catch_response=True
        ) as answer:
            if answer.status_code == 200:
                line.accepted()
                found = answer.json()
                self.share.accepted(room, found["epoch"], found["offset"])
            elif 400 <= answer.status_code < 500:
                figures.refused += 1
                answer.failure(f"HTTP {answer.status_code}")
            else:
                figures.unknown += 1
                line.begin()
                answer.failure(f"HTTP {answer.status_code}")
