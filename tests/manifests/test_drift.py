"""The chart and the Kustomize overlays make the same objects; differences that may be are listed with reasons."""

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import __version__
from tests.support import manifests as support
from tests.support import parts
from tests.support.manifests import CHART, Manifest, Manifests, identity

COMMON: dict[str, Any] = {
    "image": {"repository": "carillon-gateway", "tag": "{set-in-images}"},
    "edge": {"image": {"repository": "carillon-edge", "tag": "{set-in-images}"}, "exporter": {"enabled": True}},
    "gateway": {"replicas": 3},
    "secrets": {"existingSecret": "carillon"},
    "monitoring": {
        "baseUrl": "https://docs.example.com",
        "serviceMonitor": {"enabled": True},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}
SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}

#: Rendering of Kustomize -> the values that should make the same of the chart. Each component is in one of them.
EQUAL: dict[str, dict[str, Any]] = {
    "k8s production": COMMON,
    "k8s production-cluster-redis": COMMON
    | {
        "gateway": {"replicas": 6},
        "edge": COMMON["edge"] | {"replicas": 3},
        "networkPolicy": {
            "gatewayEgress": [{"ports": [{"port": 11000, "endPort": 13047, "protocol": "TCP"}]}],
        },
    },
    "k8s production+autoscaling": COMMON
    | {
        "autoscaling": {"enabled": True},
        "deletionCost": {"enabled": True},
        "ingress": {"enabled": True, "hosts": ["any.example.com"]},
    },
    "k8s production+keda": COMMON
    | {
        "keda": {"enabled": True, "serverAddress": "http://prometheus-operated.monitoring.svc:9090"},
        "gateway": {
            "workers": 2,
            "maxSurge": "25%",
            "resources": {"requests": {"cpu": "1", "memory": "640Mi"}, "limits": {"memory": "2Gi"}},
        },
        "edge": COMMON["edge"] | {"maxSurge": "25%"},
        "gatewayApi": {"enabled": True, "parentRefs": [{"name": "carillon"}]},
    },
    "k8s dev": {
        "image": {"repository": "carillon-gateway", "tag": "dev"},
        "secrets": {"existingSecret": "carillon"},
        "gateway": {"replicas": 1, "resources": SMALL, "settings": {"dev": True}},
        "edge": {"image": {"repository": "carillon-edge", "tag": "dev"}, "replicas": 1, "resources": SMALL},
        "valkey": {"enabled": True},
    },
}

#: `Kind/name` of objects that only one of them makes, and why.
ONLY = {
    "Namespace/carillon": "Helm's is made by `helm install --create-namespace`",
    "Pod/carillon-test": "`helm test`",
    "NetworkPolicy/carillon-test": "`helm test`",
}

#: Paths of single values that may differ, as patterns, and why.
MAY_DIFFER = {
    r"[^:]+:metadata/labels/(helm\.sh/chart|app\.kubernetes\.io/managed-by)": "says who made it",
    r"[^:]+:metadata/labels/app\.kubernetes\.io/version": "Kustomize says it once, in the base",
    r"Deployment/\S+:spec/template/metadata/annotations/checksum/\w+": "Kustomize rolls pods by the ConfigMap's name",
    r"NetworkPolicy/carillon-(gateway|edge):spec/ingress/component=test.*": "`helm test`",
    r"(Service|Pod)Monitor/\S+:spec/namespaceSelector/matchNames/0": "the chart says the default, its own namespace",
    r"PrometheusRule/carillon:.*/annotations/(runbook|dashboard)_url": "the chart must be told the base URL",
    r"Ingress/carillon:spec/rules/0/host": "the chart asks for hosts; without one, an Ingress takes all",
}


@cache
def from_chart(name: str) -> Manifests:
    """The chart with the values that should equal a rendering of Kustomize."""
    with support.tempfile.TemporaryDirectory() as folder:
        values = Path(folder, "values.yaml")
        values.write_text(yaml.safe_dump(EQUAL[name]))
        return support.chart(f"chart as {name}", "--values", str(values))


def plain(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Object -> path -> value, with names as they were before Kustomize's suffixes, in one namespace."""
    generated = {o["metadata"]["name"] for o in manifests.of("ConfigMap")}
    original = {name: re.sub(r"-[bcdfghkm2456789t]{10}$", "", name) for name in generated}
    found = {}
    for manifest in manifests.objects:
        renamed = _renamed(manifest, original)
        renamed["metadata"].pop("namespace", None)
        if renamed["kind"] == "Namespace":
            renamed["metadata"]["name"] = "carillon"
        found[identity(renamed)] = dict(_leaves(renamed))
    return found


def _renamed(value: Any, original: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(inner, original) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, original) for inner in value]
    return original.get(value, value) if isinstance(value, str) else value


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each plain value with its path. The order of lists counts, but for rules of policies, which go by `_key`."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(_parsed(key, inner), f"{path}/{key}".lstrip("/"))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}/{_key(path, inner) or number}")
    else:
        yield path, value


def _key(path: str, rule: Any) -> str:
    """Rules of a policy add up in any order: they are known by whom they name."""
    if not path.endswith(("spec/ingress", "spec/egress")) or not isinstance(rule, dict):
        return ""
    text = str(rule)
    component = re.search(r"app.kubernetes.io/component': '([\w-]+)'", text)
    return f"component={component[1]}" if component else text


def _parsed(key: str, value: Any) -> Any:
    """Files in ConfigMaps by what they mean, not by their comments."""
    if key == "carillon.toml":
        return tomllib.loads(value)
    return json.loads(value) if key.endswith(".json") else value


def differences(kustomize: Manifests, chart: Manifests) -> list[str]:
    """What is not equal and may not differ."""
    ours, theirs = plain(kustomize), plain(chart)
    said = [f"only one of them has {name}" for name in ours.keys() ^ theirs.keys() if name not in ONLY]
    for name in ours.keys() & theirs.keys():
        left, right = ours[name], theirs[name]
        said += [
            f"{name}:{path}: {left.get(path, 'nothing')!r} and {right.get(path, 'nothing')!r}"
            for path in unequal(left, right)
            if not any(re.fullmatch(pattern, f"{name}:{path}") for pattern in MAY_DIFFER)
        ]
    return sorted(said)


def unequal(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    return [path for path in left.keys() | right.keys() if left.get(path, ...) != right.get(path, ...)]


@pytest.mark.parametrize("name", EQUAL)
def test_both_make_the_same(name: str) -> None:
    parts.require("helm")
    assert differences(support.rendered(name), from_chart(name)) == []


def test_every_overlay_and_component_is_compared() -> None:
    assert {name for name in support.sets() if name.startswith("k8s ")} == EQUAL.keys()
    used = {component for mixture in support.MIXTURES.values() for component in mixture}
    in_overlays = {"namespace", "monitoring", "valkey"}
    assert {folder.name for folder in support.COMPONENTS.iterdir()} == used | in_overlays


@pytest.mark.parametrize(
    ("target", "path", "value"),
    [
        ("Deployment/carillon-gateway", "spec/template/spec/containers/0/livenessProbe/periodSeconds", 11),
        ("Deployment/carillon-gateway", "spec/template/spec/containers/0/resources/limits/memory", "2Gi"),
        ("Deployment/carillon-edge", "spec/template/metadata/annotations", {"more": "yes"}),
        ("NetworkPolicy/carillon-gateway", "spec/ingress/0/ports/0/port", 8001),
        ("NetworkPolicy/carillon-edge", "spec/egress/-", {"ports": [{"port": 22, "protocol": "TCP"}]}),
        ("Service/carillon-edge", "spec/sessionAffinity", "ClientIP"),
        ("ServiceMonitor/carillon-gateway", "spec/endpoints/0/interval", "30s"),
    ],
)
def test_a_difference_is_seen(production: Manifests, target: str, path: str, value: object) -> None:
    assert differences(production.changed(target, path, value), from_chart("k8s production"))


def test_a_setting_that_only_one_of_them_has_is_seen(production: Manifests) -> None:
    target = next(identity(c) for c in production.of("ConfigMap") if "WEB_CONCURRENCY" in c["data"])
    changed = production.changed(target, "data/CARILLON_MAX_CONNECTIONS", "100")
    assert differences(changed, from_chart("k8s production"))


def test_an_object_that_only_one_of_them_has_is_seen(production: Manifests) -> None:
    fewer = production.without("PodDisruptionBudget/carillon-edge")
    assert differences(fewer, from_chart("k8s production"))


def used_reasons() -> Iterator[str]:
    for name in EQUAL:
        ours, theirs = plain(support.rendered(name)), plain(from_chart(name))
        yield from ours.keys() ^ theirs.keys()
        for target in ours.keys() & theirs.keys():
            yield from (f"{target}:{path}" for path in unequal(ours[target], theirs[target]))


def test_no_reason_outlives_its_difference() -> None:
    parts.require("helm")
    used = set(used_reasons())
    assert set(ONLY) <= used
    assert [pattern for pattern in MAY_DIFFER if not any(re.fullmatch(pattern, place) for place in used)] == []


def test_both_are_of_this_version(production: Manifests) -> None:
    told: Manifest = yaml.safe_load((CHART / "Chart.yaml").read_text())
    labels = production.one("Deployment", "carillon-gateway")["metadata"]["labels"]
    assert told["appVersion"] == labels["app.kubernetes.io/version"] == __version__
