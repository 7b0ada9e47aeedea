"""One fault on a site under load, from a quiet beginning to the verdict."""

import asyncio
from dataclasses import dataclass
from time import monotonic

from tests.chaos.checker import Verdict, check, summary
from tests.chaos.fault import Fault
from tests.chaos.figures import Figures, columns, figures
from tests.chaos.load import Load
from tests.chaos.records import Outcome
from tests.chaos.site import CLOSES, Site
from tests.chaos.watch import Watch
from tests.support.waiting import until

#: Publications before the fault and after everything is well again.
BEFORE, AFTER = 100, 100

#: Seconds that all may take to be well again.
RECOVERY = 30.0

# What must hold.
DEAF_AT_MOST = 5.0
ABSENT_AT_MOST = 3.0
MOVES_MEDIAN, MOVES_MOST = 1, 2
PACE_FACTOR = 2
#: Memory afterwards, of what it was before, and bytes that do not count.
MEMORY_FACTOR, MEMORY_SLACK = 1.15, 16 * 2**20


@dataclass
class Result:
    """Times in seconds, memory in bytes."""

    fault: Fault
    verdict: Verdict
    figures: Figures
    accepted: int
    refused: int
    unknown: int
    clients: int
    #: How long the fault itself took, and from its end until no node was deaf.
    took: float
    deaf: float
    memory_before: int
    memory_after: int
    #: Deliveries per second, by seconds since the fault began.
    timeline: list[tuple[float, float]]

    def failures(self) -> list[str]:
        """What does not hold, one line each; none: passed."""
        found = [summary(self.verdict.findings)] if self.verdict.findings else []
        if self.fault.history_survives and self.verdict.changed_rooms:
            found.append(f"the history of {len(self.verdict.changed_rooms)} rooms was lost")
        if self.deaf > DEAF_AT_MOST:
            found.append(f"a node was deaf for {self.deaf:.1f} s")
        if self.memory_after > self.memory_before * MEMORY_FACTOR + MEMORY_SLACK:
            found.append(f"memory grew from {self.memory_before >> 20} to {self.memory_after >> 20} MiB")
        return found + (self._of_a_rollout() if self.fault.is_rollout else [])

    def _of_a_rollout(self) -> list[str]:
        seen, found = self.figures, []
        if seen.worst_absence > ABSENT_AT_MOST:
            found.append(f"a client was away for {seen.worst_absence:.1f} s")
        if seen.moves_median > MOVES_MEDIAN or seen.moves_most > MOVES_MOST:
            found.append(f"clients moved {seen.moves_median:g} times (median), {seen.moves_most} at most")
        if seen.peak_rate >= PACE_FACTOR * seen.planned_rate:
            found.append(f"{seen.peak_rate} clients came back in a second, {seen.planned_rate:.0f} were planned")
        return found


async def run(fault: Fault, site: Site, load: Load) -> Result:
    """Raises AssertionError where the fault could not be made, or the site is not well again in time."""
    load.turn_page()
    memory_before = site.memory()
    load.publish()
    await until(lambda: load.accepted() >= BEFORE, "the load runs")
    async with Watch(site) as watch:
        began = monotonic()
        await fault.act(site)
        ended = monotonic()
        await asyncio.to_thread(site.stack.wait_ready, RECOVERY)
        await until(load.all_are_open, "all clients are in their rooms again", RECOVERY)
        well = load.accepted() + AFTER
        await until(lambda: load.accepted() >= well, "the load runs again", RECOVERY)
    tops = await load.settle()
    journals = {client.name: client.journal for client in load.clients}
    verdict = check(load.publications, journals, tops)
    outcomes = [one.outcome for one in load.publications]
    return Result(
        fault,
        verdict,
        figures(journals, closes=CLOSES),
        accepted=outcomes.count(Outcome.ACCEPTED),
        refused=outcomes.count(Outcome.REFUSED),
        unknown=outcomes.count(Outcome.UNKNOWN),
        clients=len(load.clients),
        took=ended - began,
        deaf=max(0.0, watch.last_deaf - ended),
        memory_before=memory_before,
        memory_after=site.memory(),
        timeline=columns(journals, began),
    )
