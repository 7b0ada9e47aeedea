"""`python -m loadtest`, the end of `make load`: checks settings and deployment, then runs Locust, whose options follow.

With `--worker` it is one of many: the master has checked, and tells it what to do."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from loadtest import preflight, stack
from loadtest.plan import API_KEYS, SECRET, LoadError, Plan, class_names, demand_capacity, read
from local.ports import HOST, free_ports

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / ".cache" / "load"

#: Seconds that Locust may take to end after Ctrl-C.
PATIENCE = 10.0


def main(options: Sequence[str]) -> int:
    """Exit code 0: nothing was lost and nothing failed; 1: something was, or the run could not begin."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has set it to be ignored
        signal.signal(number, _interrupt)
    try:
        plan = read(os.environ)
        if "--master" in options or "--worker" in options:
            _demand_url(plan)
        else:
            demand_capacity(plan, plan.processes)
        if "--worker" in options:
            return _locust(plan, options)
        with nullcontext(plan) if plan.url else stack.running(plan) as target:
            preflight.check(target)
            return _run(target, options)
    except LoadError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _demand_url(plan: Plan) -> None:
    if not plan.url:
        raise LoadError("URL is not set: master and workers need the same deployment, and its secrets.")


def _run(plan: Plan, options: Sequence[str]) -> int:
    page = REPORTS / f"{datetime.now():%Y%m%d-%H%M%S}-{'-'.join(plan.scenarios)}.html"
    print(f"{', '.join(plan.scenarios)}: {plan.users} clients at {plan.url} for {plan.duration:g} s ...", flush=True)
    code = _locust(plan, ["--html", str(page), *_processes(plan, options), *options])
    if page.exists():
        print(f"Report: {page}", flush=True)
    return code


def _processes(plan: Plan, options: Sequence[str]) -> list[str]:
    """On this machine, where there is more than one and no other machine is meant."""
    if plan.processes == 1 or "--master" in options:
        return []
    [port] = free_ports(1)  # two runs at a time must not meet
    bind = ["--master-bind-host", HOST, "--master-bind-port", str(port), "--master-port", str(port)]
    return ["--processes", str(plan.processes), *bind]


def _locust(plan: Plan, options: Sequence[str]) -> int:
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless"]
    command += ["--host", plan.api_url, "--loglevel", "WARNING", "--only-summary"]
    environ = {**os.environ, "URL": plan.url, "API_URL": plan.api_url, "NAMESPACE": plan.namespace}
    environ |= {SECRET: plan.secret, API_KEYS: plan.api_key, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, *options, *class_names(plan)], env=environ, cwd=ROOT, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # it still writes its report
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers outlive an interrupted master
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
