"""A cluster with one Deployment in it, as far as Helm asks it to render: which kinds there are, and `lookup`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.support.http_server import SilentHandler, serving_in_thread

Owned = dict[str, Any]

#: Who has written what, as Kubernetes keeps it in `managedFields`.
HELM_4: Owned = {
    "manager": "helm",
    "operation": "Apply",
    "fieldsV1": {"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {}}},
}
HELM_4_WITHOUT: Owned = {**HELM_4, "fieldsV1": {"f:spec": {"f:selector": {}, "f:template": {}}}}
HELM_3: Owned = {**HELM_4_WITHOUT, "operation": "Update"}
SOMEBODY: Owned = {"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:labels": {}}}}
SCALED: Owned = {
    "manager": "kube-controller-manager",
    "operation": "Update",
    "subresource": "scale",
    "fieldsV1": {"f:spec": {"f:replicas": {}}},
}

#: What a release of the chart's least values is made of; autoscaling added.
KINDS = {
    "v1": ("ConfigMap", "Pod", "Service", "ServiceAccount"),
    "apps/v1": ("Deployment",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
}


class _Api(SilentHandler):
    server: "_Server"

    def do_GET(self) -> None:
        found = self.server.answers.get(self.path.partition("?")[0])
        body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    answers: dict[str, Any]


@contextmanager
def installed(folder: Path, deployment: str, replicas: int, owners: list[Owned]) -> Iterator[Path]:
    """Serves until the end of the block; yields a kubeconfig that leads there. Its namespace is `carillon`."""
    server = _Server(("127.0.0.1", 0), _Api)
    server.answers = _discovery() | {
        f"/apis/apps/v1/namespaces/carillon/deployments/{deployment}": {
            "kind": "Deployment",
            "apiVersion": "apps/v1",
            "metadata": {
                "name": deployment,
                "namespace": "carillon",
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": "carillon", "meta.helm.sh/release-namespace": "carillon"},
                "managedFields": owners,
            },
            "spec": {"replicas": replicas},
        },
    }
    with serving_in_thread(server):
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_config(f"http://127.0.0.1:{server.server_port}")))
        yield kubeconfig


def _config(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "clusters": [{"name": "tests", "cluster": {"server": url}}],
        "users": [{"name": "tests", "user": {}}],
    }


def _discovery() -> dict[str, Any]:
    """What the API server tells of itself, in the form that all versions of Kubernetes have."""
    groups: list[Any] = []
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "groups": groups},
    }
    for version, kinds in KINDS.items():
        group, _, short = version.rpartition("/")
        if group:
            named = {"groupVersion": version, "version": short}
            groups.append({"name": group, "versions": [named], "preferredVersion": named})
        resources = [{"name": _plural(kind), "namespaced": True, "kind": kind, "verbs": ["get"]} for kind in kinds]
        answers[f"/apis/{version}" if group else "/api/v1"] = {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": resources,
        }
    return answers


def _plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
