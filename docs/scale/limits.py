"""What breaks first: at how many connections each limit is reached."""

from collections.abc import Callable
from dataclasses import dataclass

from docs.scale.fleet import Fleet, fleet


@dataclass(frozen=True)
class Limit:
    what: str
    #: Whether a fleet is beyond it.
    reached: Callable[[Fleet], bool]
    then: str


LIMITS = (
    Limit(
        "10,000 sessions on one worker",
        lambda f: f.workers > 1,
        "a second pod: of CPU there is plenty left, but what a dead pod sends back is of this size",
    ),
    Limit("memory of one edge pod (0.8 of 1 GiB)", lambda f: f.edges > 1, "a second edge pod, or a larger limit"),
    Limit(
        "one Redis: half a core",
        lambda f: f.shards > 1,
        "Redis Cluster: rooms are spread over shards by themselves; or one core busier than half",
    ),
    Limit(
        "one Redis in a roll of 28 s: a whole core, with the usual work",
        lambda f: f.roll_redis + f.redis_cores > 1,
        "a longer `drain_timeout` (the grace follows), or shards",
    ),
    Limit(
        "a DNS answer in one UDP packet (512 bytes, as Nginx asks)",
        lambda f: f.dns_bytes > 512,
        "nothing, as Nginx asks again over TCP (read, not run): NetworkPolicies must allow port 53/TCP",
    ),
    Limit(
        "50 nodes that tell each other their load each second",
        lambda f: f.workers > 50,
        "nothing: they tell it less often, evening out takes longer",
    ),
    Limit(
        "500 gateway pods, 1,000 in a roll, in Nginx' shared zone of 1 MB (1,000 fit, 1,500 do not)",
        lambda f: 2 * f.workers > 1_000,
        "a larger `zone`, or several releases with a share of the edges each",
    ),
    Limit(
        "1,000 addresses in an old-style Endpoints object",
        lambda f: f.workers > 1_000,
        "nothing for this kit: EndpointSlices and DNS have all; other tools may see 1,000",
    ),
    Limit(
        "Redis' `maxclients` 10,000: two connections of each node to each shard",
        lambda f: 2 * f.workers > 10_000,
        "a higher `maxclients`; or two workers' worth of sessions on one",
    ),
)


def reached_at(limit: Limit) -> float:
    """The number of connections, within 1 %."""
    low, high = 1_000.0, 1e9
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if limit.reached(fleet(middle)) else (middle, high)
    return high
