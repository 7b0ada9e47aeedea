"""Upgrades of a release: what rolls pods, what may never change, and who owns the number of pods."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import MINIMAL, helm, pod, with_values
from tests.support.installed import HELM_3, HELM_4, HELM_4_WITHOUT, SCALED, SOMEBODY, Owned, installed
from tests.support.manifests import CHART, Manifests, identity, rendered


@pytest.mark.parametrize(
    ("value", "rolled"),
    [
        ("gateway.settings.ping_interval=20", {"gateway"}),
        ("gateway.namespaces.chat.echo=true", {"gateway"}),
        ("edge.balance=user", {"edge"}),
        ("edge.drain.timeout=40", {"edge"}),
        ("gateway.replicas=9", set()),
        ("monitoring.serviceMonitor.enabled=true", set()),
        ("networkPolicy.enabled=false", set()),
        ("deletionCost.enabled=true", set()),
        ("test.room=other", set()),
    ],
)
def test_a_changed_configuration_rolls_the_pods_that_read_it(value: str, rolled: set[str]) -> None:
    before, after = rendered("chart minimal"), with_values(value)
    assert {name for name in ("gateway", "edge") if pod(before, name) != pod(after, name)} == rolled


def test_a_new_version_of_the_chart_alone_moves_no_client(tmp_path: Path) -> None:
    helm("package", str(CHART), "--version", "99.0.0", "--destination", str(tmp_path))
    done = helm("template", "carillon", str(tmp_path / "carillon-99.0.0.tgz"), "-n", "carillon", "-f", str(MINIMAL))
    newer = Manifests("newer", tuple(yaml.safe_load_all(done.stdout)))
    assert newer.one("Deployment", "carillon-edge")["metadata"]["labels"]["helm.sh/chart"] == "carillon-99.0.0"
    for name in ("gateway", "edge"):
        assert pod(newer, name) == pod(rendered("chart minimal"), name)


def immutable(manifests: Manifests) -> dict[str, Any]:
    """What Kubernetes does not let an upgrade change, by object."""
    found: dict[str, Any] = {}
    for one in manifests.objects:
        spec = one.get("spec", {})
        if one["kind"] == "Deployment":
            found[identity(one)] = spec["selector"]
        if one["kind"] == "Service":
            found[identity(one)] = spec.get("clusterIP"), spec.get("loadBalancerClass")
        if one["kind"] == "RoleBinding":
            found[identity(one)] = one["roleRef"]
    return found


EVERYTHING = ["deletionCost.enabled=true", "valkey.enabled=true"]


@pytest.mark.parametrize(
    "values",
    [
        ["commonLabels.team=x", "gateway.podLabels.a=b", "edge.podLabels.a=b"],
        ["image.tag=9.9", "image.repository=elsewhere.example.com/g"],
        ["edge.service.type=LoadBalancer", "edge.tls.enabled=true", "edge.tls.existingSecret=tls"],
        ["autoscaling.enabled=true", "gateway.workers=2", "gateway.maxSurge=1"],
        ["networkPolicy.enabled=false", "gateway.pdb.enabled=false", "clusterDomain=other"],
    ],
    ids=lambda values: values[0],
)
def test_an_upgrade_changes_nothing_that_cannot_be_changed(values: list[str]) -> None:
    assert immutable(with_values(*EVERYTHING, *values)) == immutable(with_values(*EVERYTHING))


@pytest.mark.parametrize(
    ("release", "values", "prefix"),
    [
        ("prod", [], "prod-carillon"),
        ("my-carillon", [], "my-carillon"),
        ("prod", ["--set", "fullnameOverride=bells"], "bells"),
        ("a" * 53, [], "a" * 45),
    ],
)
def test_all_names_begin_alike_and_fit(release: str, values: list[str], prefix: str) -> None:
    done = helm("template", release, str(CHART), "-f", str(CHART / "ci" / "trial.yaml"), *values)
    objects = Manifests("", tuple(yaml.safe_load_all(done.stdout))).objects
    names = [found["metadata"]["name"] for found in objects]
    assert all(name.startswith(prefix) and len(name) <= 63 for name in names), names
    assert {f"{prefix}-gateway", f"{prefix}-edge"} <= {
        o["metadata"]["name"] for o in objects if o["kind"] == "Deployment"
    }


@pytest.mark.parametrize(
    ("owners", "replicas"),
    [
        pytest.param([HELM_4], 7, id="Helm 4 owns it still: leaving it out would make it 1"),
        pytest.param([HELM_4_WITHOUT, SCALED], None, id="the autoscaler owns it"),
        pytest.param([HELM_3, SOMEBODY, SCALED], 7, id="Helm 3 takes back what is no longer in the manifest"),
    ],
)
def test_turning_autoscaling_on_does_not_drop_the_fleet(
    owners: list[Owned], replicas: int | None, tmp_path: Path
) -> None:
    with installed(tmp_path, "carillon-gateway", 7, owners) as kubeconfig:
        command = ["template", "carillon", str(CHART), "--namespace", "carillon", "--values", str(MINIMAL)]
        command += ["--dry-run=server", "--disable-openapi-validation", "--kubeconfig", str(kubeconfig)]
        done = helm(*command, "--set", "autoscaling.enabled=true", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    gateway = Manifests("", tuple(yaml.safe_load_all(done.stdout))).one("Deployment", "carillon-gateway")
    assert gateway["spec"].get("replicas") == replicas
