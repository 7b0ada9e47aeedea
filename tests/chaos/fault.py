"""What a fault is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.site import Kind


@dataclass(frozen=True)
class Fault:
    """Something that is done to a site under load.

    `act` makes sure that it has really happened, and returns when its cause is over: the broker is back, the pod up."""

    name: str
    kind: Kind
    act: Callable[[Any], Awaitable[None]]
    #: Whether no confirmed publication is gone (P3): then every client has all, and nobody is told anything. Where the
    #: history was lost, those are told whom it affects.
    history_survives: bool = True
    #: Whether pods are replaced one after another, which users should not notice.
    is_rollout: bool = False
    #: Whether it leaves nothing that another fault could happen to: a master that is gone.
    ends_its_site: bool = False
