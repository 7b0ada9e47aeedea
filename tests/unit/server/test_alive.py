"""`python -m app.server.alive`: what the image's HEALTHCHECK runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.server.alive import DEFAULTS, address
from app.settings import Settings
from tests.support.hosted import ROOT, Pod


def test_it_asks_where_the_gateway_listens_by_default() -> None:
    assert {name: Settings.model_fields[name].default for name in DEFAULTS} == DEFAULTS
    assert address({}) == ("127.0.0.1", 9000)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"CARILLON_INTERNAL_PORT": "9100"}, ("127.0.0.1", 9100)),
        ({"CARILLON_INTERNAL_PORT": "0"}, ("127.0.0.1", 8000)),
        ({"CARILLON_INTERNAL_PORT": "0", "CARILLON_PUBLIC_PORT": "8100"}, ("127.0.0.1", 8100)),
        ({"CARILLON_BIND_HOST": "::"}, ("::1", 9000)),
        ({"CARILLON_BIND_HOST": "10.0.0.7"}, ("10.0.0.7", 9000)),
        ({"CARILLON_INTERNAL_PORT": "tcp://10.0.0.1:80"}, ("127.0.0.1", 9000)),  # N8
    ],
)
def test_it_asks_where_the_settings_say(environ: dict[str, str], found: tuple[str, int]) -> None:
    assert address(environ) == found


def test_it_reads_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "carillon.toml"
    file.write_text("internal_port = 9200\n")
    assert address({"CARILLON_CONFIG": str(file)}) == ("127.0.0.1", 9200)
    assert address({"CARILLON_CONFIG": str(file), "CARILLON_INTERNAL_PORT": "9300"}) == ("127.0.0.1", 9300)


def ask(**environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.server.alive"]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20, check=False)


def test_a_gateway_that_runs_is_alive_and_then_it_is_not() -> None:
    with Pod() as pod:
        pod.ready()
        told = {"CARILLON_BIND_HOST": "127.0.0.1", "CARILLON_INTERNAL_PORT": str(pod.internal)}
        alive = ask(**told)
        assert (alive.returncode, alive.stderr) == (0, "")
    gone = ask(**told)
    assert gone.returncode == 1
    assert gone.stderr == "carillon: /healthz: [Errno 111] Connection refused\n"


def test_it_imports_little() -> None:
    """It runs every few seconds beside each gateway."""
    heavy = "{'pydantic', 'fastapi', 'httpx', 'asyncio'} & set(sys.modules)"
    command = [sys.executable, "-c", f"import app.server.alive, sys; print({heavy})"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "set()\n"
