"""What a run says: its table for people, the same as JSON, and the plot."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.report import machine
from tests.chaos.checker import Flaw
from tests.chaos.run import Result
from tests.chaos.timeline import timeline

COLUMNS = (
    "fault",
    "verdict",
    "lost",
    "repeated",
    "out of order",
    "reused",
    "told / affected",
    "worst pause",
    "worst absence",
    "moves",
    "deaf",
    "memory",
)


def row(result: Result) -> tuple[str, ...]:
    """Pauses and times in seconds, memory in MiB."""
    verdict, seen = result.verdict, result.figures
    return (
        result.fault.name,
        "failed" if result.failures() else "passed",
        *(str(verdict.count(flaw)) for flaw in (Flaw.LOST, Flaw.REPEATED, Flaw.OUT_OF_ORDER, Flaw.REUSED)),
        f"{verdict.told} / {verdict.affected}",
        f"{seen.worst_pause:.1f}",
        f"{seen.worst_absence:.1f}",
        f"{seen.moves_median:g} / {seen.moves_most}",
        f"{result.deaf:.1f}",
        f"{result.memory_before >> 20} / {result.memory_after >> 20}",
    )


def markdown(results: Sequence[Result], errors: Sequence[tuple[str, str]]) -> str:
    """`errors`: faults that came to no verdict, with the reason."""
    return "\n".join(_markdown(results, errors)) + "\n"


def _markdown(results: Sequence[Result], errors: Sequence[tuple[str, str]]) -> Iterator[str]:
    found = machine()
    clients = max((result.clients for result in results), default=0)
    yield f"{found['time']}, {found['cpu']}, {found['cores']} cores, Python {found['python']}, {clients} clients."
    yield ""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|---|---" + "|--:" * (len(COLUMNS) - 2) + "|"
    for result in results:
        yield "| " + " | ".join(row(result)) + " |"
    for name, reason in errors:
        yield f"| {name} | no verdict: {reason.splitlines()[0] if reason else 'unknown'} |" + " |" * (len(COLUMNS) - 2)
    yield ""
    accepted, unknown = sum(result.accepted for result in results), sum(result.unknown for result in results)
    refused, heard = sum(result.refused for result in results), sum(result.figures.deliveries for result in results)
    yield f"{accepted:,} publications accepted, {refused:,} refused, {unknown:,} of unknown outcome;"
    yield f"{heard:,} deliveries."
    for result in results:
        if result.fault.is_rollout:
            rates = f"{result.figures.peak_rate} clients came back in its busiest second"
            yield f"{result.fault.name.capitalize()}: {rates}, {result.figures.planned_rate:.0f} were planned."
    for result in results:
        for failure in result.failures():
            yield ""
            yield f"**{result.fault.name}**: " + failure.replace("\n", "  \n")


def write(results: Sequence[Result], errors: Sequence[tuple[str, str]], folder: Path) -> None:
    """`chaos.md`, `chaos.json` and `chaos.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chaos.md").write_text(markdown(results, errors))
    (folder / "chaos.svg").write_text(timeline(results))
    found = {"machine": machine(), "written": time.time(), "faults": [_json(result) for result in results]}
    found["errors"] = [{"fault": name, "reason": reason} for name, reason in errors]
    (folder / "chaos.json").write_text(json.dumps(found, indent=1) + "\n")


def _json(result: Result) -> dict[str, Any]:
    verdict = result.verdict
    return {
        "fault": result.fault.name,
        "failures": result.failures(),
        "flaws": {flaw.value: verdict.count(flaw) for flaw in Flaw},
        "told": verdict.told,
        "affected": verdict.affected,
        "changed_rooms": len(verdict.changed_rooms),
        **asdict(result.figures),
        **{name: getattr(result, name) for name in ("accepted", "refused", "unknown", "clients", "took", "deaf")},
        "memory_before": result.memory_before,
        "memory_after": result.memory_after,
        "timeline": result.timeline,
    }
