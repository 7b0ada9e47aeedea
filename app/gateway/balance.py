"""Who has more sessions than its share, and how many it sends away now. Decides only: no I/O, no clock."""

import math
from dataclasses import dataclass

from msgspec import Struct

#: How often a node says what it holds, and decides, in seconds.
INTERVAL = 1.0

#: In a larger fleet that and the times below are longer, in proportion: each message goes to all nodes, and the broker
#: has to deliver so many times their number in a second, at most.
NODES = 50

#: Who was not heard for so long does not count any more, in seconds.
SILENCE = 5.0

#: How long nobody may have come or gone before sessions are sent away, in seconds: a fleet in motion is left alone.
SETTLE = 3.0

#: How long who was sent away may take until another pod counts it, in seconds.
ON_THE_WAY = 3.0

#: How long after the last of them sessions are not taken back by their cookie, in seconds.
RETURN = 10.0

#: Sessions above its share that a pod need not care for, whatever the tolerance: clients come and go.
LEAST = 10

#: Where only `connection_max_age` is set: above so much more than its share a pod does not take back whom it sent away.
USUAL_TOLERANCE = 0.1


class Load(Struct, tag="load", array_like=True, frozen=True):
    """What one node says of itself. The cookie of the edge leads to a pod, so shares are counted by pod."""

    node: str
    pod: str
    sessions: int
    #: Sent away a moment ago (`on_the_way`): they are somewhere, and maybe nobody has counted them yet.
    moving: int
    draining: bool
    #: It sees that its pod holds more than its share: no node of the pod takes back who is sent away.
    above: bool = False
    #: It does not take them back, for this or for what another node of its pod has seen.
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class _Share:
    """What a pod holds and should hold, of the sessions of all."""

    held: int
    nodes: int
    average: float


class Balance:
    """One node's view of the fleet. Times are those of any one clock, in seconds.

    A pod begins to send away when it holds more than its share and the tolerance, and goes on down to half of that, so
    that nobody sends back and forth. Only pods above their share do anything, so there is always one that takes."""

    def __init__(self, pod: str, tolerance: float) -> None:
        self._pod = pod
        self._tolerance = tolerance
        self._heard: dict[str, tuple[Load, float]] = {}
        self._changed = -math.inf
        self._refuses_until = -math.inf
        #: Whether this node's pod holds more than its share.
        self.above = False
        #: How much longer everything takes than in a small fleet.
        self._stretch = 1.0

    @property
    def interval(self) -> float:
        """Seconds until the next decision."""
        return INTERVAL * self._stretch

    @property
    def on_the_way(self) -> float:
        """Seconds until other pods have counted who was sent away."""
        return ON_THE_WAY * self._stretch

    def hear(self, load: Load, now: float) -> None:
        """A node said what it holds."""
        known, heard = self._heard.get(load.node, (None, now))
        if known is None or known.draining != load.draining or now - heard > SILENCE * self._stretch:
            self._changed = now
        self._heard[load.node] = (load, now)
        if load.above and load.pod == self._pod:
            self._refuses_until = now + RETURN * self._stretch

    def decide(self, own: Load, now: float) -> int:
        """Takes note of this node's own load; how many sessions it is to send away until the next call.

        None before all nodes of its pod say that they refuse: who is sent away by one comes back to any of them."""
        self.hear(own, now)
        for node, (_, heard) in tuple(self._heard.items()):
            if now - heard > SILENCE * self._stretch:
                del self._heard[node]
                self._changed = now
        self._stretch = max(1.0, len(self._heard) / NODES)
        in_motion = now - self._changed < SETTLE * self._stretch or any(
            load.draining for load, _ in self._heard.values()
        )
        share = None if in_motion else self._share(own)
        excess = 0 if share is None else self._excess(share)
        self.above = excess > 0
        if self.above:
            self._refuses_until = now + RETURN * self._stretch
        if share is None or not self.above or not self._pod_refuses(own):
            return 0
        # This node's part of the pod's excess; half of it, as what is known of the others is a moment old.
        return math.floor(excess * own.sessions / share.held / 2 + 0.5)

    def refuses(self, now: float) -> bool:
        """Whether who comes with this pod's own cookie is to go elsewhere."""
        return now < self._refuses_until

    def _pod_refuses(self, own: Load) -> bool:
        others = (load for load, _ in self._heard.values() if load.pod == own.pod and load.node != own.node)
        return all(load.refuses for load in others)

    def _share(self, own: Load) -> _Share:
        loads = [load for load, _ in self._heard.values()]
        pods = {load.pod for load in loads}
        of_pod = [load.sessions for load in loads if load.pod == own.pod]
        total = sum(load.sessions + load.moving for load in loads)
        return _Share(sum(of_pod), len(of_pod), total / len(pods))

    def _excess(self, share: _Share) -> int:
        """How many sessions the pod is to get rid of; 0 while it is not above its share."""
        slack = self._tolerance * share.average
        if not self.above and share.held <= share.average + max(slack, LEAST):
            return 0
        excess = share.held - math.ceil(share.average + slack / 2)
        return excess if excess >= share.nodes else 0  # the rest cannot be divided among the pod's nodes
