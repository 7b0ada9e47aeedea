"""Running a program of the machine: its command line and all of its output are shown where it fails."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from time import monotonic


def run(
    command: Sequence[str], *, stdin: str = "", timeout: float = 60, environ: Mapping[str, str] | None = None
) -> str:
    """What it printed. Raises AssertionError with both outputs where it fails, or takes longer than `timeout`."""
    began = monotonic()
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environ, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"not within {timeout:g} s: {shlex.join(command)}\n{_text(late.stdout)}{_text(late.stderr)}"
        ) from None
    print(f"+ {shlex.join(command)}  # {monotonic() - began:.1f} s")
    if done.returncode:
        raise AssertionError(f"{done.returncode} from: {shlex.join(command)}\n{done.stdout}{done.stderr}")
    if done.stderr:
        print(done.stderr.rstrip())  # warnings are shown with a failure that comes later
    return done.stdout


def _text(output: object) -> str:
    """Of a program that did not end: bytes, whatever was asked for."""
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else str(output or "")
