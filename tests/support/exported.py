"""Which metrics there are, and which labels they have: what alerts, dashboards and autoscalers may name."""

from collections.abc import Mapping

from app.telemetry.metrics import CATALOGUE

#: What a scrape adds: by the configurations in monitoring/, and by those of the chart and of k8s/.
OF_THE_TARGET = frozenset({"cluster", "namespace", "job", "instance", "pod"})

#: A label of that name which a metric has itself: its own in a cluster, where the target's comes first.
RENAMED = {"namespace": "exported_namespace"}

#: Of the exporter beside Nginx (stub_status): docs of nginx-prometheus-exporter, the same from 0.11 to 1.5.
NGINX = (
    "nginx_up",
    "nginx_connections_accepted",
    "nginx_connections_active",
    "nginx_connections_handled",
    "nginx_http_requests_total",
)

#: Prometheus' own.
PROMETHEUS: Mapping[str, frozenset[str]] = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}


def _of_carillon() -> dict[str, frozenset[str]]:
    found = {}
    for metric in CATALOGUE:
        labels = frozenset(metric.labels) | {RENAMED[label] for label in metric.labels if label in RENAMED}
        if metric.kind == "histogram":
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found[f"{metric.name}_count"] = found[f"{metric.name}_sum"] = labels
        else:
            found[metric.name] = labels
    return found


#: Name -> labels, without those of the target.
EXPORTED: Mapping[str, frozenset[str]] = {**_of_carillon(), **{name: frozenset() for name in NGINX}, **PROMETHEUS}
