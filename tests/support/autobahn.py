"""The Autobahn fuzzing client, which needs Python 2.7: installed once into `.cache/autobahn`."""

import json
import os
import subprocess
from pathlib import Path

_HOME = Path(__file__).parents[2] / ".cache" / "autobahn"
_STAMP = _HOME / "installed"

#: The last release of virtualenv that makes environments of Python 2.7.
_VIRTUALENV = "virtualenv==20.15.1"


def fuzzing_client(python27: str) -> Path:
    """The path of `wstest`. A half-made environment is made anew."""
    if not _STAMP.exists():
        _HOME.mkdir(parents=True, exist_ok=True)
        target = _HOME / "virtualenv"
        virtualenv = os.environ | {"PYTHONPATH": str(target)}
        for command, environ in (
            ([python27, "-m", "pip", "install", "-q", "--upgrade", "--target", str(target), _VIRTUALENV], os.environ),
            ([python27, "-m", "virtualenv", "-q", "--clear", str(_HOME / "venv")], virtualenv),
            ([str(_HOME / "venv/bin/pip"), "install", "-q", "autobahntestsuite"], os.environ),
        ):
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        _STAMP.touch()
    return _HOME / "venv/bin/wstest"


def run_cases(wstest: Path, url: str, cases: list[str], folder: Path, timeout: float) -> dict[str, str]:
    """The verdict on each case, by its number: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED or FAILED.

    A close that was not clean counts as FAILED."""
    spec = {
        "servers": [{"agent": "carillon", "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "outdir": str(folder / "report"),
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [wstest, "-m", "fuzzingclient", "-s", "spec.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Where no connection could be made there is no result at all.
    index = json.loads((folder / "report" / "index.json").read_text())["carillon"]
    return {case: _verdict(result) for case, result in index.items()}


def _verdict(result: dict[str, str]) -> str:
    return "FAILED" if "FAILED" in (result["behavior"], result["behaviorClose"]) else result["behavior"]
