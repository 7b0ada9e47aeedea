"""What a run found: JSON for machines, a table and plots for people."""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import targets
from bench.measure import Bench, Result
from bench.plot import line_plot

RESULTS = Path(__file__).parent / "results"

TITLES = {
    "fan-out": "CPU time per delivery, 200 bytes",
    "coalescing": "A busy room: writes joined in a window",
    "saturation": "As many deliveries as go",
    "idle memory": "Resident memory of an idle session",
    "idle cpu": "Idle sessions with heartbeats",
    "memory": "Resident memory of subscriptions",
    "handshake": "CPU time of a handshake, until the first answer",
    "inbound": "CPU time of a command",
    "redis receive": "CPU time of a publication from Redis, before its deliveries",
    "publication": "CPU time of a publication, by the room's history; one member",
    "coming back": "CPU time of a session that comes back with a position",
    "presence": "CPU time of a session that enters a room whose members are kept",
    "payload": "CPU time per delivery, by payload",
    "compression": "2 KB of JSON with permessage-deflate",
    "stalled": "One member that does not read, among 1,000",
    "rooms": "CPU time per delivery, by rooms on the node",
    "workers": "CPU time per delivery, by workers, and behind Nginx",
    "edge handshake": "CPU time of a handshake through Nginx",
    "edge memory": "Resident memory and descriptors of Nginx for a WebSocket",
    "edge idle": "CPU time of a connection and second through Nginx, with heartbeats",
    "publish spread": "Redis' CPU time of a PUBLISH, by the nodes that hear it",
}


def machine() -> dict[str, str]:
    return {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(bench: Bench, folder: Path, *, beside: bool) -> None:
    """Writes `latest.json`, `latest.md` and the plots into a folder.

    `beside`: only some phases were measured; those of the former run that were not stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "latest.json"
    phases = list(dict.fromkeys(result.phase for result in bench.results))
    runs = [{**machine(), "quick": bench.quick, "repetitions": bench.repetitions, "phases": phases}]
    if beside and file.exists():
        former = json.loads(file.read_text())
        bench.results[:0] = [Result(**result) for result in former["results"] if result["phase"] not in phases]
        bench.results.sort(key=lambda result: list(TITLES).index(result.phase))
        for run in former["runs"]:
            run["phases"] = [phase for phase in run["phases"] if phase not in phases]
        runs = [run for run in former["runs"] if run["phases"]] + runs
    found = {"runs": runs, "results": [result.as_json() for result in bench.results]}
    file.write_text(json.dumps(found, indent=1) + "\n")
    (folder / "latest.md").write_text("\n".join(_markdown(bench, runs)) + "\n")
    for name, phase, parameter, title in (
        ("members", "fan-out", "members", "CPU time per delivery by members"),
        ("rooms", "rooms", "rooms", "CPU time per delivery by rooms on the node"),
    ):
        series = _series(bench.results, phase, parameter)
        if any(len(points) > 1 for points in series.values()):
            (folder / f"{name}.svg").write_text(line_plot(title, parameter, "µs per delivery", series))


def _series(results: Sequence[Result], phase: str, parameter: str) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        if result.phase == phase:
            series.setdefault(result.server, []).append((result.parameters[parameter], result.figures["us"]))
    return series


def _markdown(bench: Bench, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "Medians of the repetitions, which all servers of a phase take in turn; ratios within a repetition."
    for run in runs:
        where = f"{run['cpu']}, {run['cores']} cores, {run['kernel']}, Python {run['python']}"
        what = "all phases" if len(runs) == 1 else ", ".join(run["phases"])
        yield f"{run['time']}, {where}, {run['repetitions']} repetitions: {what}."
    yield from ("", "### Targets", "", *targets.table(bench))
    for phase in dict.fromkeys(result.phase for result in bench.results):
        yield from ("", f"### {TITLES[phase]}", "")
        yield from _table([result for result in bench.results if result.phase == phase])


def _table(results: Sequence[Result]) -> Iterator[str]:
    parameters = list(dict.fromkeys(key for result in results for key in result.parameters))
    figures = list(dict.fromkeys(key for result in results for key in result.figures))
    yield "| " + " | ".join(["", *parameters, *map(_heading, figures)]) + " |"
    yield "|---" * (1 + len(parameters)) + "|--:" * len(figures) + "|"
    for result in results:
        cells = [result.server, *(_cell(result.parameters.get(key)) for key in parameters)]
        cells += [_cell(result.figures.get(key)) for key in figures]
        yield "| " + " | ".join(cells) + " |"


def _heading(figure: str) -> str:
    return "µs" if figure == "us" else figure.replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
