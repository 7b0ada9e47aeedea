"""`python -m bench [--quick] [--only PHASE,...]`: measures, and writes results/latest.json, tables and plots."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import native, report
from bench.load import LoadFailed
from bench.measure import Bench
from bench.phases import (
    coalescing,
    edge,
    fan_out,
    growth,
    handshake,
    history,
    idle,
    inbound,
    payloads,
    redis,
    saturation,
    stalled,
)
from local.errors import LocalError

PHASES = {
    "fan_out": fan_out.run,
    "coalescing": coalescing.run,
    "saturation": saturation.run,
    "idle": idle.run,
    "handshake": handshake.run,
    "inbound": inbound.run,
    "redis": redis.run,
    "history": history.run,
    "payloads": payloads.run,
    "stalled": stalled.run,
    "growth": growth.run,
    "edge": edge.run,
}

#: What `--quick` measures; the others take their time.
QUICK = ("fan_out", "coalescing", "saturation", "idle", "handshake", "inbound", "redis", "history")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Carillon beside a floor and its peers.")
    parser.add_argument("--quick", action="store_true", help="the main figures, in under three minutes")
    parser.add_argument(
        "--only", default="", metavar="PHASES", help=f"only some, beside the results that are there: {','.join(PHASES)}"
    )
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of what is written")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(QUICK if asked.quick else PHASES)
    unknown = [name for name in names if name not in PHASES]
    if unknown:
        parser.error(f"no such phase: {', '.join(unknown)}")
    try:
        with TemporaryDirectory(prefix="carillon-bench-") as folder:
            bench = Bench(native.build(), Path(folder), quick=asked.quick, repetitions=3 if asked.quick else 5)
            for name in names:
                PHASES[name](bench)
    except (LoadFailed, LocalError) as error:
        print(error, file=sys.stderr)
        return 1
    report.write(bench, asked.results, beside=bool(asked.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
