"""Measuring: what a phase cost each server, repeated in turn, as medians and as ratios within a repetition."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.dialect import Line
from bench.load import Load
from bench.native import Native
from bench.process import cpu
from bench.server import Server

Figures = dict[str, float]


@dataclass(frozen=True)
class Result:
    """What one server did in one phase."""

    phase: str
    server: str
    parameters: Mapping[str, Any]
    #: Medians over the repetitions.
    figures: Figures
    repetitions: Sequence[Figures] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Bench:
    """One run: how thorough it is, and what it has found."""

    native: Native
    folder: Path
    quick: bool
    repetitions: int
    results: list[Result] = field(default_factory=list)

    def add(self, phase: str, server: str, parameters: Mapping[str, Any], repetitions: Sequence[Figures]) -> None:
        result = Result(phase, server, parameters, medians(repetitions), repetitions)
        self.results.append(result)
        told = " ".join(f"{key}={value}" for key, value in parameters.items())
        figures = "  ".join(f"{key} {value:.4g}" for key, value in result.figures.items())
        print(f"{phase:<12} {server:<22} {told:<28} {figures}", flush=True)

    def find(self, phase: str, server: str, **parameters: Any) -> Result | None:
        """The result of a server whose parameters include these."""
        for result in self.results:
            if (result.phase, result.server) == (phase, server) and parameters.items() <= result.parameters.items():
                return result
        return None


def medians(repetitions: Sequence[Figures]) -> Figures:
    keys = repetitions[0].keys() if repetitions else ()
    return {key: statistics.median(figures[key] for figures in repetitions) for key in keys}


class Loaded:
    """A server with its clients."""

    def __init__(self, server: Server, load: Load) -> None:
        self.server = server
        self.load = load

    def members(self, count: int) -> Self:
        self.load.connect("member", [self.server.dialect.member(n) for n in range(count)])
        return self

    def publisher(self) -> Self:
        self.load.connect("publisher", [self.server.dialect.publisher()])
        return self

    def idle(self, lines: Sequence[Line]) -> Self:
        self.load.connect("idle", lines)
        return self

    def cost(self, units: int, work: Callable[[], Any]) -> Figures:
        """Microseconds of CPU time that `work` costs the server for each of its `units`; and those beside it."""
        processes = {"": self.server.pids(), **{name: pids() for name, pids in self.server.beside.items()}}
        before = {name: cpu(pids) for name, pids in processes.items()}
        work()
        spent = {name: cpu(pids) - before[name] for name, pids in processes.items()}
        own = spent.pop("")
        each = 1e6 / units
        figures = {"us": own.total * each, "user_us": own.user * each, "system_us": own.system * each}
        return figures | {f"{name}_us": used.total * each for name, used in spent.items()}

    def deliveries(self, template: str, *, members: int, seconds: float = 1.0, **how: Any) -> Figures:
        """CPU time per delivery over about `seconds` of it, with the latency that the clients saw."""
        warm_up = self.cost(3 * members, lambda: self.load.publish(3, template))
        count = max(5, min(3000, round(seconds / (max(warm_up["us"], 1) * 1e-6 * members))))
        return self.published(count, template, members=members, **how)

    def published(self, count: int, template: str, *, members: int, **how: Any) -> Figures:
        """The same over so many publications."""
        seen: dict[str, Any] = {}
        figures = self.cost(count * members, lambda: seen.update(self.load.publish(count, template, **how)))
        return figures | _seen_by(seen)


def _seen_by(answer: Mapping[str, Any]) -> Figures:
    """What the clients saw: latency, rate and the size of a frame's payload."""
    delivered = max(1, answer["delivered"])
    return {
        "p50_ms": answer["p50_us"] / 1000,
        "p99_ms": answer["p99_us"] / 1000,
        "per_second": delivered / answer["seconds"],
        "bytes": answer["bytes"] / delivered,
    }


def loaded(stack: ExitStack, bench: Bench, server: Server) -> Loaded:
    """The server with a load client of its own, for as long as `stack` lasts."""
    return Loaded(server, stack.enter_context(Load(bench.native.load, server.name, server.port, server.dialect.ping)))


def in_turn(bench: Bench, phase: str, parameters: Mapping[str, Any], work: Mapping[str, Callable[[], Figures]]) -> None:
    """Each server's work, one after the other, as often as the run repeats; ratios to the first ones in the same turn.

    `floor` and `tutorial`, where they are among them, are what the others are compared with."""
    turns = [{name: do() for name, do in work.items()} for _ in range(bench.repetitions)]
    for name in work:
        repetitions = []
        for turn in turns:
            figures = dict(turn[name])
            for base in ("floor", "tutorial"):
                if base in turn and base != name:
                    figures[f"x_{base}"] = figures["us"] / turn[base]["us"]
            repetitions.append(figures)
        bench.add(phase, name, parameters, repetitions)
