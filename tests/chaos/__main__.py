"""`python -m tests.chaos`, the end of `make chaos`: one fault after another, then the table.

Exit code 0 where all passed, 1 where not, 2 for a filter that names none, 130 after Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tests.chaos import report
from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS, named
from tests.chaos.load import CLIENTS, Load
from tests.chaos.run import Result, run
from tests.chaos.site import Kind, Site, open_site
from tests.support.stack import API_KEY


class Chaos:
    """A long run: what has come out so far is written also where it is broken off."""

    def __init__(self, clients: int, folder: Path) -> None:
        self._clients = clients
        self._folder = folder
        self.results: list[Result] = []
        self.errors: list[tuple[str, str]] = []

    async def run(self, faults: Sequence[Fault]) -> None:
        with TemporaryDirectory(prefix="carillon-chaos-") as folder:
            try:
                for number, (kind, those) in enumerate(groupby(faults, key=lambda fault: fault.kind)):
                    await self._on_sites(kind, list(those), Path(folder) / f"site-{number}")
            finally:
                report.write(self.results, self.errors, self._folder)

    async def _on_sites(self, kind: Kind, faults: list[Fault], folder: Path) -> None:
        """One site for as many faults as it takes, another one after it is used up or broken."""
        number = 0
        while faults:
            number += 1
            _say(f"Starting two pods, Nginx and {kind.value} ...")
            own = folder / str(number)
            own.mkdir(parents=True)
            left = len(faults)
            try:
                async with open_site(kind, own) as site:
                    await self._on(site, faults)
            except Exception as error:  # it did not start, or did not end well
                _say(f"The site failed:\n{error!r}")
                if len(faults) == left:
                    self.errors.append((faults.pop(0).name, repr(error)))

    async def _on(self, site: Site, faults: list[Fault]) -> None:
        load = Load(site.edge, site.stack.token, site.apis, API_KEY, clients=self._clients)
        try:
            await load.start()
            while faults and await self._one(faults.pop(0), site, load):
                pass
        finally:
            await load.stop()

    async def _one(self, fault: Fault, site: Site, load: Load) -> bool:
        """Whether the site may be used again."""
        began = monotonic()
        try:
            result = await run(fault, site, load)
        except Exception as error:  # whatever it is, the other faults come to their verdicts
            _say(f"  {fault.name}: NO VERDICT\n{error!r}")
            for name, tail in site.stack.log_tails(10):
                _say(f"    {name}: {tail}")
            self.errors.append((fault.name, repr(error)))
            return False
        self.results.append(result)
        failures = result.failures()
        _say(f"  {fault.name}: {'FAILED' if failures else 'passed'} ({monotonic() - began:.0f} s)")
        for failure in failures:
            _say("    " + failure.replace("\n", "\n    "))
        return not failures and not fault.ends_its_site


def _say(text: str) -> None:
    print(text, flush=True)


async def _until_done(chaos: Chaos, faults: Sequence[Fault]) -> None:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C: what was started is ended before this process is.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await chaos.run(faults)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", default="", help="comma-separated parts of the faults' names; all by default")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--results", type=Path, default=Path(".cache/chaos"))
    wanted = parser.parse_args()
    faults = [fault for fault in FAULTS if any(fault in named(part.strip()) for part in wanted.only.split(","))]
    if not faults:
        print(f"No fault is called {wanted.only!r}. There are:", *(f"  {fault.name}" for fault in FAULTS), sep="\n")
        return 2
    chaos, began = Chaos(wanted.clients, wanted.results), monotonic()
    try:
        asyncio.run(_until_done(chaos, faults))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    _say("\n" + report.markdown(chaos.results, chaos.errors))
    _say(f"{monotonic() - began:.0f} s. Written to {wanted.results}: chaos.md, chaos.json, chaos.svg")
    complete = len(chaos.results) == len(faults)
    return 0 if complete and not any(result.failures() for result in chaos.results) else 1


if __name__ == "__main__":
    sys.exit(main())
