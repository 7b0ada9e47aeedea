"""Runs the targets one after the other: `python -m fuzz [--seconds 60] [target ...]`.

New inputs are kept in `.cache/fuzz/`. What breaks a promise becomes a seed in `fuzz/corpus/`, for `make test`."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from fuzz import CORPUS, TARGETS

FOUND = Path(__file__).parents[1] / ".cache" / "fuzz"

#: Longest input, in bytes: small ones find more, and all lengths that matter have their own form below this.
MAX_LENGTH = 1024

ONE = "--in-this-process"


def main() -> int:
    if sys.argv[1:2] == [ONE]:
        fuzz_in_this_process(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="target", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    try:
        importlib.import_module("atheris")
    except ImportError:
        print("atheris is missing: there are wheels for Python 3.11 on Linux x86-64 only.", file=sys.stderr)
        return 1
    failed = [name for name in arguments.targets or TARGETS if not run(name, arguments.seconds)]
    if failed:
        print(f"\nBroken: {', '.join(failed)}. The inputs are in fuzz/corpus/*/crash-*.", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, seconds: int) -> bool:
    """One target in a process of its own: atheris ends the one that it runs in."""
    print(f"\n== {name}, {seconds} s", flush=True)
    found, seeds = FOUND / name, CORPUS / name
    found.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", "-timeout=5", "-rss_limit_mb=1024"]
    options += ["-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={seeds}/"]
    command = [sys.executable, "-m", "fuzz", ONE, name, *options, str(found), str(seeds)]
    return subprocess.run(command, check=False).returncode == 0


def fuzz_in_this_process(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["app"]):
        target = importlib.import_module(f"fuzz.{name}")
    atheris.Setup([name, *arguments], target.fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
