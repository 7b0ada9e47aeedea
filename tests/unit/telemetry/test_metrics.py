"""The catalogue of metrics."""

import re

from prometheus_client import REGISTRY

from app.telemetry import process
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
    }
    assert {label for metric in CATALOGUE for label in metric.labels} <= allowed


def test_process_metrics_are_plausible() -> None:
    assert 10_000_000 < process.resident_bytes() < 10_000_000_000
    before = process.open_fds()
    with open("/dev/null", "rb"):
        assert process.open_fds() == before + 1


def test_what_an_alert_waits_for_is_there_from_the_start() -> None:
    """`increase()` does not see the value that a series begins with."""
    for outcome in ("repaired", "insufficient"):
        assert REGISTRY.get_sample_value("carillon_repairs_total", {"outcome": outcome}) is not None
