"""What a run writes down: every publication with its outcome, and all that each client was told, in order."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from app.broker.base import Position


class Outcome(Enum):
    """What its publisher knows of a publication."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    #: It may appear, at most once.
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Publication:
    """`id` is its data. Moments are of `time.monotonic`."""

    id: int
    room: str
    at: float
    outcome: Outcome = Outcome.UNKNOWN
    #: Where it is accepted.
    position: Position | None = None


class Heard(NamedTuple):
    """A publication that a client received."""

    at: float
    room: str
    offset: int
    id: int


class Began(NamedTuple):
    """A reply to `subscribe`. `recovered`: as the client was told; None where it did not say where it was."""

    at: float
    room: str
    epoch: str
    offset: int
    recovered: bool | None


class Closed(NamedTuple):
    """A connection ended; `node` is the one that it was with."""

    at: float
    code: int
    node: str


class Opened(NamedTuple):
    """A client that was away is in all of its rooms again."""

    at: float


Event = Heard | Began | Closed | Opened
