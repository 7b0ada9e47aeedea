"""The arithmetic of docs/architecture-at-scale.md: it follows from what was measured, and adds up."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from docs.scale.assumptions import ASSUMED, CHOSEN, Choice, Load
from docs.scale.costs import SOURCES, Costs
from docs.scale.fleet import fleet, heard_by
from docs.scale.limits import LIMITS, reached_at
from docs.scale.tables import BUSY, SIZES, short

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "bench" / "results" / "latest.json").read_text())["results"]


def measured(phase: str, server: str, figure: str, **parameters: object) -> float:
    for result in RESULTS:
        if (result["phase"], result["server"]) == (phase, server) and parameters.items() <= result[
            "parameters"
        ].items():
            return float(result["figures"][figure])
    raise AssertionError(f"the benchmark has no {phase} of {server} with {parameters}")


def spread(nodes: int) -> float:
    return measured("publish spread", "redis", "redis_us", nodes=nodes)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("session_bytes", lambda: measured("idle memory", "carillon", "bytes", sessions=5000)),
        ("idle_us", lambda: measured("idle cpu", "carillon", "percent of a core") * 1e4 / 5000),
        ("delivery_us", lambda: measured("fan-out", "carillon", "us", members=1000)),
        ("delivery_us", lambda: measured("fan-out", "carillon", "us", members=5000)),
        ("back_us", lambda: measured("coming back", "nothing missed", "us", sessions=200)),
        ("receive_us", lambda: measured("redis receive", "paced 2000/s", "us")),
        ("publish_us", lambda: measured("publication", "history 100", "us")),
        ("edge_bytes", lambda: measured("edge memory", "nginx", "bytes")),
        ("edge_idle_us", lambda: measured("edge idle", "carillon", "nginx_us")),
        ("edge_delivery_us", lambda: measured("workers", "1 worker behind Nginx", "nginx_us")),
        ("edge_handshake_us", lambda: measured("edge handshake", "carillon behind Nginx", "nginx_us")),
        ("script_us", lambda: measured("publication", "history 100", "redis_us") - Costs.hear_us),
        ("hear_us", lambda: (spread(100) - spread(1)) / 99),
        ("echo_us", lambda: spread(1) - Costs.hear_us),
        ("redis_back_us", lambda: measured("coming back", "nothing missed", "redis_us", sessions=200)),
    ],
)
def test_a_cost_is_what_the_benchmark_says(name: str, figure: Callable[[], float]) -> None:
    """Within a third: so much the machine drifts from hour to hour."""
    assert figure() == pytest.approx(getattr(Costs, name), rel=0.34)


def test_every_figure_is_explained() -> None:
    assert list(SOURCES) == [field.name for field in fields(Costs)]
    assert list(ASSUMED) == [field.name for field in fields(Load)]
    assert list(CHOSEN) == [field.name for field in fields(Choice)]


def test_a_fleet_reckoned_by_hand() -> None:
    """One worker, so that every publication is heard once."""
    load = Load(deliveries=1, room=100, rooms=1, life=1000, position_check=10)
    one = fleet(10_000, Costs(), load)
    assert (one.workers, one.publications, one.heard_by) == (1, 100, 1)
    sessions = 10_000 * (1.9 + 6 + 0.51)
    assert one.gateway_cores == pytest.approx((sessions + 100 * (180 + 30) + 100 / 10 * 29) * 2.5 / 1e6)
    assert one.redis_cores == pytest.approx((100 * (68 + 5.1) + 100 / 10 * 15 + 10 * 80 + 23.1) * 2.5 / 1e6)
    assert one.edge_cores == pytest.approx(10_000 * (1.4 + 7.8 + 0.18) * 2.5 / 1e6)
    assert one.gateway_memory == pytest.approx(125e6 + 10_000 * 7_400)


@pytest.mark.parametrize("size", SIZES)
def test_a_fleet_keeps_to_what_was_chosen(size: int) -> None:
    for load in (Load(), BUSY):
        found, choice = fleet(size, load=load), Choice()
        assert found.busy <= choice.busy
        assert size / found.workers <= choice.sessions
        assert found.redis_cores / found.shards <= choice.busy
        assert found.edge_memory / found.edges <= choice.edge_memory
        assert found.ports < 28_232
        assert size / found.edges / choice.edge_workers <= 16_384, "worker_connections of the edge"


@pytest.mark.parametrize(("workers", "room", "hear"), [(1, 50, 1), (10, 1, 1), (100, 50, 39.5), (3, 10_000, 3)])
def test_how_many_nodes_hear_a_publication(workers: int, room: int, hear: float) -> None:
    assert heard_by(workers, room) == pytest.approx(hear, rel=0.01)


def test_busier_clients_need_more_workers() -> None:
    assert fleet(100_000, load=Load(deliveries=20)).workers > fleet(100_000).workers


def test_a_longer_drain_asks_for_less_at_once() -> None:
    quick, slow = fleet(1_000_000), fleet(1_000_000, choice=replace(Choice(), drain=280))
    assert slow.roll_redis == pytest.approx(quick.roll_redis / 10)


def test_limits_are_said_at_the_size_where_they_are_reached() -> None:
    for limit in LIMITS:
        at = reached_at(limit)
        assert limit.reached(fleet(at))
        assert not limit.reached(fleet(at / 1.02))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0001, "under 0.005"), (0.023, "0.023"), (28.4, "28"), (9_960, "10k"), (999_999, "1M"), (4.1e9, "4.1G")],
)
def test_figures_have_two_digits(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize("argument", ["many", "0", "-5"])
def test_the_program_wants_a_number(argument: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "docs.scale", argument], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (1, "Usage: python -m docs.scale CONNECTIONS\n")
