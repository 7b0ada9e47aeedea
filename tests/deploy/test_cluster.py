"""What is claimed of Kubernetes, on the cluster that KUBECONFIG leads to: `make test-deploy`.

Everything happens in a namespace of its own, in the order of this file, on one release; the images must be where the
cluster can get them (docs/deploy.md). What a cluster cannot show is skipped with the reason."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.load_pod import API_KEYS, CLIENTS, LABELS, SECRET, TOKEN_SECRET, LoadPod, troubles, unevenness
from tests.support import parts
from tests.support.cluster import (
    CHART,
    LOOK_AGAIN,
    OWN,
    RELEASE,
    ROLLOUT_TIMEOUT,
    ROOT,
    Cluster,
    Images,
    helm,
    in_namespace,
    known,
    own_namespace,
    schedulable,
    without_accounts,
)
from tests.support.commands import run
from tests.support.stack import API_KEY
from tests.support.stack import SECRET as HMAC
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]

COST = "controller.kubernetes.io/pod-deletion-cost"
VALUE_SETS = sorted(CHART.glob("ci/*.yaml"))
OVERLAYS = sorted(path.parent for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))


def values(images: Images, *, monitored: dict[str, str] | None = None, **gateway: Any) -> dict[str, Any]:
    """A small release with everything that is tested here. `monitored`: labels by which Prometheus finds it,
    where there is its operator; `gateway` is added to the values of that name."""
    small = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    return {
        "image": images.gateway.values(),
        "edge": {"image": images.edge.values(), "resources": small},
        "gateway": {"replicas": 2, "resources": small, "namespaces": {"kept": {"history_size": 10000}}} | gateway,
        "secrets": {"existingSecret": SECRET},
        "valkey": {"enabled": True, "image": images.valkey.values()},
        "deletionCost": {"enabled": True},
        "networkPolicy": {
            "backends": [{"podSelector": {"matchLabels": LABELS}}],
            "prometheus": [{"namespaceSelector": {}}],
        },
        "monitoring": {"serviceMonitor": {"enabled": monitored is not None, "labels": monitored or {}}},
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    parts.require("cluster")
    with own_namespace(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def images(cluster: Cluster) -> Images:
    parts.require("cluster-images")
    return Images.from_environment()


@pytest.fixture(scope="module")
def before(cluster: Cluster) -> set[str]:
    """What is in the namespace without the release."""
    cluster.kubectl(
        *("create", "secret", "generic", SECRET),
        *(f"--from-literal={TOKEN_SECRET}={HMAC}", f"--from-literal={API_KEYS}={API_KEY}"),
    )
    return cluster.everything()


@pytest.fixture(scope="module")
def installed(cluster: Cluster, images: Images, before: set[str]) -> Cluster:
    cluster.release("install", values(images))
    return cluster


@pytest.fixture(scope="module")
def load(installed: Cluster, images: Images) -> LoadPod:
    pod = LoadPod(installed)
    pod.start(images.gateway)
    return pod


@contextmanager
def nothing_lost(load: LoadPod, moves: int = 0) -> Iterator[None]:
    """500 clients and 100 publications per second go on meanwhile, and nobody loses anything or is cut off."""
    load.ask("begin")
    try:
        yield
    except BaseException:
        with suppress(AssertionError):  # the next one begins anew
            load.ask("settle")
        raise
    found = troubles(load.ask("settle"), moves)
    assert found == [], "\n".join(found)


# What the API server says of the manifests


@pytest.mark.parametrize("file", VALUE_SETS, ids=lambda path: path.stem)
def test_the_cluster_would_take_the_chart(cluster: Cluster, file: Path) -> None:
    rendered = run([*helm(cluster.namespace, "template", RELEASE, str(CHART)), f"--values={file}"])
    _would_take(cluster, rendered)


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda path: path.name)
def test_the_cluster_would_take_the_overlay(cluster: Cluster, folder: Path) -> None:
    _would_take(cluster, cluster.kubectl("kustomize", str(folder)))


def _would_take(cluster: Cluster, rendered: str) -> None:
    documents = in_namespace(list(yaml.safe_load_all(rendered)), cluster.namespace)
    ours, unknown = known(documents, cluster.api_versions(), cluster.kinds())
    if unknown:
        print(f"NOT tried, as this cluster has no such API: {', '.join(unknown)}")
    arguments = ("apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", "-")
    taken = cluster.kubectl(*arguments, stdin=yaml.safe_dump_all(without_accounts(ours)), timeout=120)
    assert len(taken.splitlines()) == len(ours)


# A release


def test_it_installs_and_its_own_test_passes(installed: Cluster) -> None:
    """Without `--logs`: older versions of Helm look for those of a pod that they have just deleted."""
    installed.helm("test", RELEASE, "--timeout=180s", timeout=200)


def test_pods_run_as_the_security_review_wants_and_gateways_have_no_token(installed: Cluster) -> None:
    """The namespace enforces the restricted profile: what violates it would not run."""
    for pod in installed.pods("gateway") + installed.pods("edge"):
        assert pod["spec"]["automountServiceAccountToken"] is False
        mounts = [mount["mountPath"] for one in pod["spec"]["containers"] for mount in one["volumeMounts"]]
        assert not any("serviceaccount" in mount for mount in mounts)
    who = f"system:serviceaccount:{installed.namespace}:{RELEASE}-deletion-cost"
    assert _may(installed, who, "patch", "pods") == "yes"
    assert _may(installed, who, "patch", "deployments") == "no"
    assert _may(installed, who, "get", "secrets") == "no"


def _may(cluster: Cluster, who: str, verb: str, what: str) -> str:
    """`auth can-i` says no with exit status 1."""
    try:
        return cluster.kubectl("auth", "can-i", verb, what, f"--as={who}").strip()
    except AssertionError as error:
        return "no" if "\nno" in str(error) else str(error)


def test_the_emptiest_pod_is_marked(installed: Cluster, load: LoadPod) -> None:
    """By the program of its own; it looks every 30 seconds."""

    def marked() -> bool:
        clients = load.ask("state")["pods"]
        costs = {pod["metadata"]["name"]: int(_costs(pod)) for pod in installed.pods("gateway")}
        return len(costs) > 1 and all(abs(costs[name] - clients.get(name, 0)) <= 60 for name in costs)

    wait_until(marked, "each pod's cost is about its clients", 90, every=LOOK_AGAIN)


def _costs(pod: dict[str, Any]) -> str:
    return str(pod["metadata"].get("annotations", {}).get(COST, -1000))


@pytest.mark.parametrize("component", ["gateway", "edge"])
def test_a_rolling_restart_is_not_noticed(installed: Cluster, load: LoadPod, component: str) -> None:
    old = {pod["metadata"]["name"] for pod in installed.pods(component)}
    with nothing_lost(load, moves=2):
        installed.kubectl("rollout", "restart", f"deployment/{RELEASE}-{component}")
        installed.rolled_out(component)
    assert old.isdisjoint(pod["metadata"]["name"] for pod in installed.pods(component))


@pytest.mark.parametrize("component", ["gateway", "edge"])
def test_a_deleted_pod_says_goodbye_to_every_client(installed: Cluster, load: LoadPod, component: str) -> None:
    with nothing_lost(load):
        installed.kubectl("delete", "pod", installed.pods(component)[0]["metadata"]["name"], timeout=120)
        installed.rolled_out(component)


def test_a_node_can_be_drained(installed: Cluster, load: LoadPod) -> None:
    """With one node only: a pod of it is evicted, which is what a drain does with each."""
    nodes = schedulable(json.loads(installed.kubectl("get", "nodes", "--output=json"))["items"])
    with nothing_lost(load):
        if len(nodes) > 1:
            _drain(installed, installed.pods("gateway")[0]["spec"]["nodeName"])
        else:
            print("One node takes pods: evicting one pod in the place of draining the node")
            _evict(installed, installed.pods("gateway")[0]["metadata"]["name"])
        installed.rolled_out("gateway", "edge")


def _drain(cluster: Cluster, node: str) -> None:
    """Of gateways and edges of this test only: Valkey would lose all that it has, and `drain` asks all namespaces."""
    both = f"{OWN}={cluster.namespace},app.kubernetes.io/component in (gateway,edge)"
    try:
        cluster.kubectl(
            *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={both}"),
            f"--timeout={ROLLOUT_TIMEOUT}s",
            timeout=ROLLOUT_TIMEOUT + 10,
        )
    finally:
        cluster.kubectl("uncordon", node)


def _evict(cluster: Cluster, pod: str) -> None:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": cluster.namespace},
    }
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction"

    def evicted() -> bool:
        """The budget allows it as soon as Kubernetes has counted the ready pods."""
        try:
            cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
        except AssertionError as refused:
            if "disruption budget" not in str(refused):
                raise
            return False
        return True

    wait_until(evicted, "the disruption budget allows an eviction", 60, every=LOOK_AGAIN)


def test_four_pods_are_even_after_two(installed: Cluster, images: Images, load: LoadPod) -> None:
    """Clients stay where they are when pods are added; the excess is sent away, past the edge's cookie."""
    even = {"rebalance_tolerance": 0.1}
    installed.release("upgrade", values(images, settings=even))
    with nothing_lost(load):
        installed.release("upgrade", values(images, replicas=4, settings=even))
        wait_until(
            lambda: unevenness(load.ask("state")["pods"], 4) < 1.2,
            "no pod has 1.2 times its share",
            240,
            every=LOOK_AGAIN,
        )


# Scale, upgrade, autoscaling, rollback


def test_scale_upgrade_autoscaling_on_rollback(installed: Cluster, images: Images, load: LoadPod) -> None:
    """And at no time are there fewer pods than wanted."""
    cases: list[Callable[[], None]] = [
        lambda: installed.release("upgrade", values(images, replicas=3)),
        lambda: installed.release("upgrade", values(images, replicas=3, settings={"drain_rate": 50})),
        lambda: installed.release("upgrade", _autoscaled(images)),
        lambda: _roll_back(installed, 2),
    ]
    for step in cases:
        with nothing_lost(load), _replicas(installed) as seen:
            step()
        assert min(seen) >= 2, f"the number of gateways was {seen}"


def _autoscaled(images: Images, *, monitored: dict[str, str] | None = None, **autoscaling: Any) -> dict[str, Any]:
    limits = {"enabled": True, "minReplicas": 2, "maxReplicas": 4, "connectionsPerPod": 5000}
    return values(images, monitored=monitored) | {"autoscaling": limits | autoscaling}


def _roll_back(cluster: Cluster, steps: int) -> None:
    """Helm 4 conflicts with the autoscaler over a number of pods that only the older revision gives."""
    history = json.loads(cluster.helm("history", RELEASE, "--output=json"))
    revision = history[-1 - steps]["revision"]
    force = ["--force-conflicts"] if cluster.helm("version", "--short").startswith("v4") else []
    cluster.helm(
        *("rollback", RELEASE, str(revision), "--wait", f"--timeout={ROLLOUT_TIMEOUT}s", *force),
        timeout=ROLLOUT_TIMEOUT + 60,
    )
    cluster.rolled_out("gateway", "edge")
    assert cluster.get("horizontalpodautoscalers") == []


@contextmanager
def _replicas(cluster: Cluster) -> Iterator[list[int]]:
    """All numbers of gateways that the Deployment wanted meanwhile, looked at every second."""
    seen: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(1):
            told = cluster.kubectl("get", f"deployment/{RELEASE}-gateway", "--output=jsonpath={.spec.replicas}")
            if int(told) not in seen[-1:]:
                seen.append(int(told))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()
    assert seen, "the Deployment could not be looked at"


def test_the_autoscaler_goes_up_and_down(installed: Cluster, images: Images, load: LoadPod) -> None:
    if "custom.metrics.k8s.io/v1beta1" not in installed.api_versions():
        pytest.skip("this cluster has no custom metrics API: prometheus-adapter is not installed")
    path = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{installed.namespace}/pods/*/carillon_connections"
    monitored = labels_for_prometheus(installed)
    installed.release("upgrade", _autoscaled(images, monitored=monitored))
    # Else Prometheus does not scrape this namespace, or the adapter lacks helm/carillon/files/prometheus-adapter.yaml.
    wait_until(lambda: _answers(installed, path), "the custom metric carillon_connections", 180, every=LOOK_AGAIN)
    at_once = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}
    fast = {"connectionsPerPod": CLIENTS // 4, "behavior": {"scaleUp": at_once, "scaleDown": at_once}}
    installed.release("upgrade", _autoscaled(images, monitored=monitored, **fast))
    wait_until(lambda: len(installed.pods("gateway")) == 4, "four pods for 500 clients", 300, every=LOOK_AGAIN)
    load.stop()
    wait_until(lambda: len(installed.pods("gateway")) == 2, "two pods for nobody", 600, every=LOOK_AGAIN)


def labels_for_prometheus(cluster: Cluster) -> dict[str, str] | None:
    """Those that the first Prometheus of the operator looks for; None where nothing looks for ServiceMonitors."""
    types = cluster.kubectl("api-resources", "--api-group=monitoring.coreos.com", "--output=name").split()
    if "servicemonitors.monitoring.coreos.com" not in types:
        return None
    if "prometheuses.monitoring.coreos.com" not in types:  # not the operator, but what takes over from it
        return {}
    listed = cluster.kubectl("get", "prometheuses.monitoring.coreos.com", "--all-namespaces", "--output=json")
    selectors = [one["spec"].get("serviceMonitorSelector") or {} for one in json.loads(listed)["items"]]
    labels: dict[str, str] = selectors[0].get("matchLabels", {}) if selectors else {}
    return labels


def _answers(cluster: Cluster, path: str) -> bool:
    try:
        return bool(json.loads(cluster.kubectl("get", "--raw", path))["items"])
    except AssertionError:
        return False


# The end


def test_uninstalled_it_leaves_nothing_behind(installed: Cluster, before: set[str]) -> None:
    installed.helm("uninstall", RELEASE, "--wait", "--timeout=240s", timeout=260)
    installed.kubectl("delete", "all,configmap,networkpolicy", "--selector=carillon-test", "--timeout=90s", timeout=100)
    left: set[str] = set()

    def gone() -> bool:
        left.clear()
        left.update(installed.everything() - before)
        return not left

    try:
        wait_until(gone, "all of it is gone", 180, every=LOOK_AGAIN)
    except AssertionError:
        raise AssertionError(f"still there: {sorted(left)}") from None
