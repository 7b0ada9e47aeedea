"""What a run shall do, from the environment: the same variables for `make load`, its workers, a Job in a cluster."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from urllib.parse import urlsplit

#: Scenario -> publications per second where RATE does not say.
SCENARIOS = {"chat": 20.0, "broadcast": 1.0, "reconnect_storm": 10.0}
#: Scenario -> the class of its clients.
_CLASSES = {"chat": "ChatUser", "broadcast": "BroadcastListener", "reconnect_storm": "StormListener"}
#: Those whose publications come over HTTP, so that an API key is needed.
PUBLISHED_OVER_HTTP = {"broadcast", "reconnect_storm"}

#: One gevent process; more of them and the latencies are the generator's.
USERS_OF_A_PROCESS = 1000

#: The namespace that a stack of our own has with history, and the one that every deployment has, without.
OWN_NAMESPACE, ANY_NAMESPACE = "load", "chat"

SECRET, API_KEYS = "CARILLON_TOKEN_HMAC_SECRET", "CARILLON_API_KEYS"


class LoadError(Exception):
    """The run cannot begin; the text is one line for a person and says what to do."""


@dataclass(frozen=True)
class Plan:
    """One run."""

    #: `http://host:port` of the edge (empty: a stack of our own), and of the server API.
    url: str
    api_url: str
    secret: str
    api_key: str
    namespace: str
    scenarios: tuple[str, ...]
    #: Clients, of all scenarios together.
    users: int
    #: New clients per second at the start.
    ramp: float
    #: Publications per second of each scenario; 0: what SCENARIOS says.
    rate: float
    #: Seconds from the last client's start until publishing ends.
    duration: float
    processes: int
    #: Clients of a room, in `chat` and `reconnect_storm`.
    room_size: int
    #: Bytes of a publication's data.
    payload: int
    #: Those who publish over HTTP.
    publishers: int
    #: Seconds between two storms; the first one comes after half of it.
    storm_every: float

    @property
    def ws_url(self) -> str:
        """Where clients connect to."""
        return "ws" + self.url.removeprefix("http") + "/ws"

    @property
    def over_http(self) -> bool:
        return not PUBLISHED_OVER_HTTP.isdisjoint(self.scenarios)

    def clients_of(self, scenario: str) -> float:
        """How many clients a scenario has, about."""
        return self.users / len(self.scenarios) if scenario in self.scenarios else 0

    def rate_of(self, scenario: str) -> float:
        """Publications per second of a scenario, of all its publishers together."""
        return self.rate or SCENARIOS[scenario]

    def storm_rooms(self) -> int:
        return max(1, round(self.clients_of("reconnect_storm") / self.room_size))

    def rooms_over_http(self) -> list[tuple[str, float]]:
        """Rooms that the publishers publish into, and how often per second."""
        rooms: list[tuple[str, float]] = []
        if "broadcast" in self.scenarios:
            rooms.append((self.room("broadcast", 0), self.rate_of("broadcast")))
        if "reconnect_storm" in self.scenarios:
            count = self.storm_rooms()
            each = self.rate_of("reconnect_storm") / count
            rooms += [(self.room("reconnect_storm", number), each) for number in range(count)]
        return rooms

    def room(self, scenario: str, *numbers: int) -> str:
        return f"{self.namespace}:{'-'.join(['load', scenario, *map(str, numbers)])}"

    def storms(self) -> list[float]:
        """When all are cut: seconds after the last client's start."""
        if "reconnect_storm" not in self.scenarios:
            return []
        every = min(self.storm_every, self.duration)
        return [every / 2 + every * number for number in range(int(self.duration / every))]


def read(environ: Mapping[str, str]) -> Plan:
    """Raises LoadError for what is wrong or missing; without URL, secrets are not asked for."""
    url = _url(environ, "URL")
    scenarios = _scenarios(environ.get("SCENARIO") or "chat")
    users = whole(environ, "USERS", 500, 10_000_000)
    processes = whole(environ, "PROCESSES", ceil(users / USERS_OF_A_PROCESS), 1024)
    plan = Plan(
        url=url,
        api_url=_url(environ, "API_URL") or url,
        secret=_first(environ.get(SECRET, "")),
        api_key=_first(environ.get(API_KEYS, "")),
        namespace=environ.get("NAMESPACE") or (ANY_NAMESPACE if url else OWN_NAMESPACE),
        scenarios=scenarios,
        users=users,
        ramp=_number(environ, "RAMP", min(100.0 * processes, max(1.0, users / 5))),
        rate=_number(environ, "RATE", 0, zero=True),
        duration=_number(environ, "DURATION", 30),
        processes=processes,
        room_size=whole(environ, "ROOM_SIZE", 20, 1_000_000),
        payload=whole(environ, "PAYLOAD", 200, 60_000),
        publishers=whole(environ, "PUBLISHERS", 2, 1000),
        storm_every=_number(environ, "STORM_EVERY", 20),
    )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", plan.namespace):
        raise LoadError(f"NAMESPACE={plan.namespace} is not the name of a namespace.")
    if users < len(scenarios):
        raise LoadError(f"USERS={users} are fewer than the {len(scenarios)} scenarios.")
    if url and not plan.secret:
        raise LoadError(f"{SECRET} is not set: with URL, it must be the deployment's, to sign the clients' tokens.")
    if url and plan.over_http and not plan.api_key:
        raise LoadError(f"{API_KEYS} is not set: {' and '.join(scenarios)} publish through {plan.api_url}/api/publish.")
    return plan


def class_names(plan: Plan) -> list[str]:
    """The Locust users that the run needs."""
    return [_CLASSES[name] for name in plan.scenarios] + (["Publisher"] if plan.over_http else [])


def demand_capacity(plan: Plan, processes: int) -> None:
    """Raises LoadError where so many processes would measure themselves."""
    if plan.users > processes * USERS_OF_A_PROCESS:
        raise LoadError(
            f"USERS={plan.users} in {processes} processes: above {USERS_OF_A_PROCESS} each the latencies are the "
            f"generator's own; set PROCESSES={ceil(plan.users / USERS_OF_A_PROCESS)} or more (docs/load.md)."
        )


def _url(environ: Mapping[str, str], name: str) -> str:
    text = environ.get(name, "").rstrip("/")
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise LoadError(f"{name}={text} must be http://host[:port] or https://host[:port] of a deployment.")
    return text


def _scenarios(text: str) -> tuple[str, ...]:
    names = tuple(SCENARIOS) if text == "all" else tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in SCENARIOS:
            raise LoadError(f"SCENARIO={name} is none: there are {', '.join(SCENARIOS)}, several with commas, and all.")
    return names


def _first(secrets: str) -> str:
    return next((one.strip() for one in secrets.replace("\n", ",").split(",") if one.strip()), "")


def whole(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number from 1 on. Raises LoadError."""
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= most):
        raise LoadError(f"{name}={text} must be a whole number from 1 to {most}.")
    return int(text)


def _number(environ: Mapping[str, str], name: str, default: float, *, zero: bool = False) -> float:
    text = environ.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (0 < number < 1e6 or (zero and number == 0)):
        raise LoadError(f"{name}={text} must be a number above 0.")
    return number
