"""How many pods there are: one party decides, by metrics that there are, and nodes can be drained."""

from collections.abc import Iterator

import promql_parser
import pytest
import yaml

from app.telemetry.metrics import CATALOGUE
from tests.support import manifests as support
from tests.support.manifests import Manifests, RenderingError, identity
from tests.support.pod_settings import environment

EXPORTED = {metric.name for metric in CATALOGUE}


def quarrels(manifests: Manifests) -> list[str]:
    """What is wrong with who decides on the number of pods."""
    said: list[str] = []
    scalers = manifests.of("HorizontalPodAutoscaler", "ScaledObject")
    scaled = {scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers}
    if len(scaled) != len(scalers):
        said.append(f"{[identity(scaler) for scaler in scalers]} fight")
    for deployment in manifests.of("Deployment"):
        name = deployment["metadata"]["name"]
        if ("replicas" in deployment["spec"]) is (name in scaled):
            said.append(f"{name}: replicas and autoscaling, or neither")
    if scaled and not long_connections_end(manifests):
        said.append("clients stay where they are when pods are added")
    for scaler in scalers:
        said += [f"{identity(scaler)}: {complaint}" for complaint in (*bounds(scaler), *metrics(scaler))]
    return said


def bounds(scaler: support.Manifest) -> Iterator[str]:
    spec = scaler["spec"]
    least, most = (spec.get(f"{end}Replicas", spec.get(f"{end}ReplicaCount", 0)) for end in ("min", "max"))
    if not 2 <= least <= most:
        yield f"from {least} to {most} pods"
    behavior = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", spec).get("behavior", {})
    down = behavior.get("scaleDown", {})
    if down.get("stabilizationWindowSeconds", 300) < 600:
        yield "takes pods away after less than ten minutes of quiet"
    if [policy["type"] for policy in down.get("policies", [])] != ["Pods"]:
        yield "takes away more than one pod after the other"


def metrics(scaler: support.Manifest) -> Iterator[str]:
    """By connections and by lag, both exported."""
    names: set[str] = set()
    for metric in scaler["spec"].get("metrics", []):
        names.add(metric["pods"]["metric"]["name"])
    for trigger in scaler["spec"].get("triggers", []):
        query = trigger["metadata"]["query"]
        names |= set(selected(promql_parser.parse(query)))
        if f'namespace="{scaler["metadata"]["namespace"]}"' not in query:
            yield f"counts pods of other namespaces: {query}"
        if trigger["metadata"].get("ignoreNullValues") != "false":
            yield "takes no answer of Prometheus for no connections"
    if names - EXPORTED:
        yield f"goes by {names - EXPORTED}, which no gateway exports"
    if not {"carillon_connections", "carillon_loop_lag_seconds"} <= names:
        yield f"goes by {names} only"


def selected(expression: object) -> Iterator[str]:
    """Names of the metrics in a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name
    parts = [getattr(expression, inner, None) for inner in ("expr", "lhs", "rhs", "vector_selector")]
    for part in (*parts, *getattr(expression, "args", ())):
        if part is not None:
            yield from selected(part)


def long_connections_end(manifests: Manifests) -> bool:
    pod = next(pod for pod in manifests.pods() if pod.component == "gateway")
    return environment(manifests, pod.container("gateway")).get("CARILLON_CONNECTION_MAX_AGE") == "14400"


def test_one_party_decides(manifests: Manifests) -> None:
    assert quarrels(manifests) == []


HPA = "HorizontalPodAutoscaler/carillon-gateway"


@pytest.mark.parametrize(
    ("target", "path", "value"),
    [
        ("Deployment/carillon-gateway", "spec/replicas", 3),
        ("Deployment/carillon-edge", "spec/replicas", ...),
        (HPA, "spec/minReplicas", 21),
        (HPA, "spec/minReplicas", 1),
        (HPA, "spec/behavior/scaleDown/stabilizationWindowSeconds", 60),
        (HPA, "spec/behavior/scaleDown/policies/0/type", "Percent"),
        (HPA, "spec/metrics/0/pods/metric/name", "carillon_sockets"),
        (HPA, "spec/metrics/1/pods/metric/name", "carillon_connections"),
    ],
)
def test_a_quarrel_is_seen(autoscaled: Manifests, target: str, path: str, value: object) -> None:
    assert quarrels(autoscaled.changed(target, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/triggers/0/metadata/query", 'sum(carillon_sockets{namespace="carillon"})'),
        ("spec/triggers/0/metadata/query", "sum(carillon_connections)"),
        ("spec/triggers/0/metadata/ignoreNullValues", ...),
        ("metadata/namespace", "elsewhere"),
        ("spec/maxReplicaCount", 1),
    ],
)
def test_a_wrong_query_is_seen(path: str, value: object) -> None:
    support.parts.require("kubectl")
    assert quarrels(support.rendered("k8s production+keda").changed("ScaledObject/carillon-gateway", path, value))


def test_connections_without_an_end_are_seen(autoscaled: Manifests) -> None:
    target = next(identity(c) for c in autoscaled.of("ConfigMap") if "WEB_CONCURRENCY" in c["data"])
    assert quarrels(autoscaled.changed(target, "data/CARILLON_CONNECTION_MAX_AGE", ...))


def test_the_adapter_knows_the_autoscalers_metrics(autoscaled: Manifests) -> None:
    rules = yaml.safe_load((support.CHART / "files" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    offered = {name for rule in rules for name in selected(promql_parser.parse(rule["seriesQuery"]))}
    assert offered == {m["pods"]["metric"]["name"] for m in autoscaled.one(*HPA.split("/"))["spec"]["metrics"]}
    for rule in rules:
        query = rule["metricsQuery"].replace("<<.Series>>", "series").replace("<<.GroupBy>>", "pod")
        promql_parser.parse(query.replace("<<.LabelMatchers>>", 'pod="a"'))


def test_two_autoscalers_are_refused_by_kustomize() -> None:
    support.parts.require("kubectl")
    with pytest.raises(RenderingError, match="/spec/replicas"):
        support.overlaid("both", "production", ("autoscaling", "keda"))


def undrainable(manifests: Manifests) -> list[str]:
    """Budgets that keep a node from being drained, and pods that have none."""
    budgets = manifests.of("PodDisruptionBudget")
    said = [
        identity(budget)
        for budget in budgets
        if budget["spec"].get("maxUnavailable") in (None, 0, "0%")
        or budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow"
    ]
    for pod in manifests.pods():
        covered = any(support.matches(budget["spec"]["selector"], pod.labels) for budget in budgets)
        if pod.component in ("gateway", "edge") and pod.owner.startswith("Deployment") and not covered:
            said.append(f"{pod.owner} has no budget")
    return said


def test_nodes_can_be_drained(manifests: Manifests) -> None:
    assert undrainable(manifests) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/maxUnavailable", 0),
        ("spec/maxUnavailable", ...),
        ("spec/unhealthyPodEvictionPolicy", ...),
        ("spec/selector/matchLabels/app.kubernetes.io~component", "none"),
    ],
)
def test_a_budget_that_holds_up_a_node_is_seen(production: Manifests, path: str, value: object) -> None:
    assert undrainable(production.changed("PodDisruptionBudget/carillon-gateway", path, value))


def test_pods_are_spread_over_nodes_and_zones(manifests: Manifests) -> None:
    """By one constraint: the scheduler spreads nothing over nodes that lack a label of any, and many have no zone."""
    for pod in manifests.pods():
        if pod.component in ("gateway", "edge") and pod.owner.startswith("Deployment"):
            (constraint,) = pod.spec["topologySpreadConstraints"]
            assert constraint["topologyKey"] == "kubernetes.io/hostname"
            assert support.matches(constraint["labelSelector"], pod.labels)
            (zone,) = pod.spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
            assert zone["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
            assert support.matches(zone["podAffinityTerm"]["labelSelector"], pod.labels)
            for among in (constraint, zone["podAffinityTerm"]):
                assert among["matchLabelKeys"] == ["pod-template-hash"], "old pods of a roll do not count"
