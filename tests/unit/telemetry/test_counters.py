"""Plain counters and their way into Prometheus."""

from prometheus_client import REGISTRY

from app.telemetry.counters import Counters


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_flush_moves_only_what_is_new() -> None:
    before = value("carillon_deliveries_total", namespace="test")
    counters = Counters()
    counters.deliveries["test"] += 3
    counters.flush()
    counters.flush()
    assert value("carillon_deliveries_total", namespace="test") == before + 3
    counters.deliveries["test"] += 2
    counters.flush()
    assert value("carillon_deliveries_total", namespace="test") == before + 5
    assert counters.deliveries["test"] == 5


def test_numbers_as_labels_and_counters_without() -> None:
    closed, bad = value("carillon_connections_closed_total", code="3008"), value("carillon_http_bad_requests_total")
    counters = Counters()
    counters.closed[3008] += 1
    counters.bad_requests += 4
    counters.flush()
    assert value("carillon_connections_closed_total", code="3008") == closed + 1
    assert value("carillon_http_bad_requests_total") == bad + 4


def test_two_owners_add_up() -> None:
    before = value("carillon_limit_hits_total", limit="test")
    for counters in (Counters(), Counters()):
        counters.limit_hits["test"] += 1
        counters.flush()
    assert value("carillon_limit_hits_total", limit="test") == before + 2
