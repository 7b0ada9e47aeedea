"""The catalogue of metrics."""

import re

import pytest
from prometheus_client import REGISTRY

from app import __version__
from app.telemetry import cgroup, process
from app.telemetry.metrics import CATALOGUE


def test_the_catalogue_is_what_is_exported() -> None:
    exported = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("carillon_")}
    assert exported == {metric.name.removesuffix("_total") for metric in CATALOGUE}


def test_names_say_kind_and_unit() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"carillon_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith("."), metric.name


def test_every_gauge_says_how_workers_are_put_together() -> None:
    """N10: ages and lags by the worst, limits and yes/no by the least, counts by the sum."""
    for metric in CATALOGUE:
        if metric.kind != "gauge":
            assert metric.mode == ""
        elif metric.name.endswith("_seconds"):
            assert metric.mode == "livemax", metric.name
        else:
            assert metric.mode in ("livesum", "livemin"), metric.name


def test_no_label_can_grow_without_bound() -> None:
    """Invariant 8."""
    allowed = {
        "code",
        "hook",
        "kind",
        "limit",
        "namespace",
        "outcome",
        "policy",
        "reason",
        "route",
        "status",
        "transport",
        "type",
        "version",
    }
    assert {label for metric in CATALOGUE for label in metric.labels} <= allowed


def test_process_metrics_are_plausible() -> None:
    assert 10_000_000 < process.resident_bytes() < 10_000_000_000
    before = process.open_fds()
    with open("/dev/null", "rb"):
        assert process.open_fds() == before + 1


def test_a_worker_says_which_release_it_is_and_what_it_has_left() -> None:
    process.ProcessMetrics().update()
    assert REGISTRY.get_sample_value("carillon_build_info", {"version": __version__}) == 1
    most, free = (REGISTRY.get_sample_value(f"carillon_process_{name}_fds") for name in ("max", "free"))
    assert most is not None
    assert free is not None
    assert most - 1000 < free < most


def test_a_worker_says_what_memory_its_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory", lambda: cgroup.Memory(used=5, limit=7))
    process.ProcessMetrics().update()
    assert REGISTRY.get_sample_value("carillon_memory_used_bytes") == 5
    assert REGISTRY.get_sample_value("carillon_memory_limit_bytes") == 7


def test_what_an_alert_waits_for_is_there_from_the_start() -> None:
    """`increase()` does not see the value that a series begins with."""
    assert REGISTRY.get_sample_value("carillon_connections_opened_total", {"transport": "websocket"}) is not None
    for outcome in ("repaired", "insufficient"):
        assert REGISTRY.get_sample_value("carillon_repairs_total", {"outcome": outcome}) is not None
