"""The two programs in C, compiled where they are needed: the load client and the floor."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from app import native
from local.errors import LocalError
from local.stack import ROOT

SOURCES = Path(__file__).parent / "native"
BUILT = ROOT / ".cache" / "bench"


@dataclass(frozen=True)
class Native:
    load: Path
    floor: Path


def build() -> Native:
    """Compiles what is older than its source. Raises LocalError where there is no C compiler."""
    compiler = native.compiler()
    if compiler is None:
        raise LocalError("The benchmark needs a C compiler (Debian: apt install gcc libc6-dev).")
    BUILT.mkdir(parents=True, exist_ok=True)
    return Native(_compiled(compiler, "load"), _compiled(compiler, "floor"))


def _compiled(compiler: str, name: str) -> Path:
    source, program = SOURCES / f"{name}.c", BUILT / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run([compiler, "-O2", "-o", program, source, "-lm"], check=True)
    return program
