"""A stack of our own for runs without URL: what `make run` starts, on free ports, ended with the run."""

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

from loadtest.plan import API_KEYS, OWN_NAMESPACE, SECRET, LoadError, Plan, whole
from local.child import Child, stop
from local.errors import LocalError
from local.ports import HOST, free_ports
from local.stack import plan as plan_stack

START_DEADLINE = 60.0
#: Publications of a room: more than a storm lets anybody miss.
HISTORY = 10_000


@contextmanager
def running(plan: Plan, environ: Mapping[str, str] = os.environ) -> Iterator[Plan]:
    """The plan against the stack. Raises LoadError where it does not start; its logs are in the text."""
    made = {SECRET: secrets.token_urlsafe(32), API_KEYS: secrets.token_urlsafe(32)}
    # Nothing of a shell's settings for another deployment, but for the choice of servers.
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("CARILLON_") or name in ("CARILLON_NGINX", "CARILLON_VALKEY")
    }
    kept |= made | {f"CARILLON_NAMESPACES__{OWN_NAMESPACE.upper()}__HISTORY_SIZE": str(HISTORY)}
    with tempfile.TemporaryDirectory(prefix="carillon-load-") as folder:
        try:
            [port] = free_ports(1)
            pods = whole(environ, "CARILLON_PODS", 2, 64)
            stack = plan_stack(Path(folder), port=port, pods=pods, environ=kept)
            stages = [[Child(service) for service in stage] for stage in stack.stages]
            try:
                _start([child for stage in reversed(stages) for child in stage])
                url = f"http://{HOST}:{port}"
                yield replace(plan, url=url, api_url=url, secret=made[SECRET], api_key=made[API_KEYS])
            finally:
                for stage in stages:
                    stop(stage)
        except (LocalError, ValueError) as error:
            raise LoadError(f"The stack did not start: {error}") from None


def _start(children: list[Child]) -> None:
    for child in children:
        child.start()
    deadline = monotonic() + START_DEADLINE
    for child in children:
        while not child.service.is_ready():
            if not child.running or monotonic() > deadline:
                raise LoadError(f"The stack did not start, {child.service.name} says:\n{child.log_tail()}")
            sleep(0.05)
