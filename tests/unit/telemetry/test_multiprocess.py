"""Metrics of several workers (N10), each life of a worker a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.telemetry import multiprocess

WORKER = """
import sys
from app.telemetry import multiprocess
multiprocess.use_slot(int(sys.argv[1]))
from app.telemetry import metrics
metrics.CONNECTIONS.set(3)
metrics.LOOP_LAG.set(float(sys.argv[1]))
metrics.READY.set(sys.argv[1] == "0")
metrics.DELIVERIES.labels("chat").inc(10)
print(multiprocess.exposition().decode())
"""


def run(slot: int, directory: Path) -> dict[str, float]:
    """What a worker in this slot exports at the end of its life."""
    out = subprocess.run(
        [sys.executable, "-c", WORKER, str(slot)],
        env=os.environ | {multiprocess.DIRECTORY: str(directory)},
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    samples = (line.rpartition(" ") for line in out.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def test_workers_are_put_together_and_a_successor_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(0, tmp_path)
    both = run(1, tmp_path)
    assert both["carillon_connections"] == 6
    assert both["carillon_loop_lag_seconds"] == 1
    assert both["carillon_ready"] == 0
    assert both['carillon_deliveries_total{namespace="chat"}'] == 20
    files = len(list(tmp_path.glob("*.db")))

    monkeypatch.setenv(multiprocess.DIRECTORY, str(tmp_path))
    multiprocess.forget(1)
    after = run(0, tmp_path)  # the successor of the first
    assert after["carillon_connections"] == 3
    assert after["carillon_ready"] == 1
    assert after['carillon_deliveries_total{namespace="chat"}'] == 30
    run(1, tmp_path)
    assert len(list(tmp_path.glob("*.db"))) == files


def test_a_directory_is_made_and_emptied_of_metrics_alone(tmp_path: Path) -> None:
    directory = tmp_path / "pod"
    multiprocess.prepare(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "counter_0.db").touch()
    (directory / "precious").touch()
    multiprocess.prepare(directory)
    assert [path.name for path in directory.iterdir()] == ["precious"]


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pod").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        multiprocess.prepare(tmp_path / "pod")


def test_one_process_alone_exports_too() -> None:
    from app.telemetry import metrics

    metrics.ROOMS.set(7)
    assert b"carillon_rooms 7.0" in multiprocess.exposition()
