"""What the product must reach, and aims at; and whether a run shows it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.measure import Bench
from bench.phases.fan_out import IN_PYTHON


@dataclass(frozen=True)
class Target:
    """`must` and `aim` are upper bounds."""

    what: str
    unit: str
    must: float | None
    aim: float | None
    value: Callable[[Bench], float | None]


def _figure(phase: str, server: str, figure: str, **parameters: object) -> Callable[[Bench], float | None]:
    def value(bench: Bench) -> float | None:
        result = bench.find(phase, server, **parameters)
        return None if result is None else result.figures.get(figure)

    return value


def _ratio(phase: str, server: str, other: str, figure: str) -> Callable[[Bench], float | None]:
    def value(bench: Bench) -> float | None:
        ours, theirs = bench.find(phase, server), bench.find(phase, other)
        return None if ours is None or theirs is None else ours.figures[figure] / theirs.figures[figure]

    return value


TARGETS = (
    Target(
        "CPU per delivery, 1,000 members, pure Python",
        "x floor",
        1.7,
        1.4,
        _figure("fan-out", IN_PYTHON, "x_floor", members=1000),
    ),
    Target("the same", "x tutorial", 0.5, None, _figure("fan-out", IN_PYTHON, "x_tutorial", members=1000)),
    Target(
        "... with the send loop in C", "x floor", None, 1.15, _figure("fan-out", "carillon", "x_floor", members=1000)
    ),
    Target(
        "... at 100 messages/s, 20 ms window", "us", 3.5, 2.0, _figure("coalescing", "carillon, 20 ms", "us", rate=100)
    ),
    Target(
        "... at 250 messages/s, 10 ms window", "us", 3.5, 2.0, _figure("coalescing", "carillon, 10 ms", "us", rate=250)
    ),
    Target(
        "idle session, authenticated, one subscription",
        "bytes",
        12_288,
        4096,
        _figure("idle memory", "carillon", "bytes", sessions=5000),
    ),
    Target(
        "5,000 idle sessions with heartbeats",
        "% of a core",
        2,
        None,
        _figure("idle cpu", "carillon", "percent of a core"),
    ),
    Target(
        "further subscription", "bytes", 300, None, _figure("memory", "carillon", "bytes", of="further subscription")
    ),
    Target("new room", "bytes", 1024, None, _figure("memory", "carillon", "bytes", of="new room")),
    Target(
        "handshake, HS256 in the upgrade",
        "x tutorial",
        0.6,
        0.45,
        _figure("handshake", "carillon, HS256 in the upgrade", "x_tutorial"),
    ),
    Target("inbound command", "us", 40, 15, _figure("inbound", "ping", "us")),
    Target("Redis receive, paced", "us", 100, 40, _figure("redis receive", "paced 2000/s", "us")),
    Target("Redis receive, burst", "us", 30, 5, _figure("redis receive", "burst", "us")),
    Target(
        "2 KB compressed", "x plain", 1.2, 1.0, _ratio("compression", "carillon, compressed", "carillon, plain", "us")
    ),
)


def table(bench: Bench) -> Iterator[str]:
    """Markdown; a target that this run did not measure is left out."""
    yield "| | measured | must | aim | |"
    yield "|---|--:|--:|--:|---|"
    for target in TARGETS:
        value = target.value(bench)
        if value is not None:
            must, aim = (f"{bound:,g}" if bound is not None else "" for bound in (target.must, target.aim))
            yield f"| {target.what} | {value:,.3g} {target.unit} | {must} | {aim} | {_verdict(target, value)} |"


def _verdict(target: Target, value: float) -> str:
    if target.must is not None and value > target.must:
        return "missed"
    if target.aim is not None and value > target.aim:
        return "must met, aim missed" if target.must is not None else "aim missed"
    return "met"
