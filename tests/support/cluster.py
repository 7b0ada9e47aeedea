"""A namespace of a Kubernetes cluster for tests: made with restricted Pod Security, gone afterwards with all in it."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import kube_tools, parts
from tests.support.commands import run
from tests.support.stack import running
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "carillon"
RELEASE = "carillon"

#: Seconds: for one call of the API; for a rollout, whose drains and waits take most of two minutes.
CALL_TIMEOUT = 60
ROLLOUT_TIMEOUT = 420

#: Seconds between two looks at the cluster: each is a process or two, on what may be the machine that it all runs on.
LOOK_AGAIN = 1.0

#: The label of all that a test's release consists of, with its namespace: another release may have the same name.
OWN = "carillon-test-namespace"

_POD_SECURITY = {
    f"pod-security.kubernetes.io/{mode}": value
    for mode, value in (("enforce", "restricted"), ("warn", "restricted"), ("warn-version", "latest"))
}

#: What Kubernetes puts into every namespace, and what comes and goes there by itself.
_IN_EVERY_NAMESPACE = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
_OF_THE_CLUSTER = ("events", "events.events.k8s.io", "pods.metrics.k8s.io")


@dataclass(frozen=True)
class Image:
    """A reference taken apart, as the chart wants it: `registry:5000/a/b:tag` or `a/b@sha256:...`."""

    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def of(cls, reference: str) -> "Image":
        """Raises AssertionError where it has neither tag nor digest."""
        rest, _, digest = reference.partition("@")
        folder, _, name = rest.rpartition("/")
        name, _, tag = name.partition(":")
        assert tag or digest, f"{reference!r} needs a tag or a digest: repository:tag"
        return cls(f"{folder}/{name}" if folder else name, tag, digest)

    def values(self) -> dict[str, str]:
        return {"repository": self.repository, "tag": self.tag, "digest": self.digest}

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class Images:
    """What the cluster's nodes can fetch, or have been given."""

    gateway: Image
    edge: Image
    valkey: Image

    @classmethod
    def from_environment(cls) -> "Images":
        return cls(*(Image.of(os.environ[name]) for name in parts.CLUSTER_IMAGES))


class Cluster:
    """`with own_namespace() as cluster: cluster.kubectl("get", "pods")`: every call is in the namespace."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        self._folder = folder

    # Programs

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = CALL_TIMEOUT) -> str:
        return run(kubectl(self.namespace, *arguments), stdin=stdin, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = CALL_TIMEOUT) -> str:
        return run(helm(self.namespace, *arguments), timeout=timeout)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    # The release

    def release(self, verb: str, values: Mapping[str, Any]) -> None:
        """`install` or `upgrade`, and waits until all of it runs."""
        file = self._folder / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values) | {"commonLabels": {OWN: self.namespace}}))
        self.helm(*release_arguments(verb, file), timeout=ROLLOUT_TIMEOUT + CALL_TIMEOUT)
        self.rolled_out("gateway", "edge")

    def rolled_out(self, *components: str) -> None:
        """Waits until only pods of the newest kind are left of these, and the old ones have ended."""
        for component in components:
            deployment = f"deployment/{RELEASE}-{component}"
            self.kubectl("rollout", "status", deployment, f"--timeout={ROLLOUT_TIMEOUT}s", timeout=ROLLOUT_TIMEOUT + 10)
        wait_until(lambda: not any(map(self.ending, components)), "old pods have ended", 180, every=LOOK_AGAIN)

    # Looking

    def get(self, what: str, selector: str = "") -> list[dict[str, Any]]:
        arguments = ["get", what, "--output=json", *([f"--selector={selector}"] if selector else [])]
        items: list[dict[str, Any]] = json.loads(self.kubectl(*arguments))["items"]
        return items

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Those that are not on their way out, oldest first."""
        found = [pod for pod in self._pods(component) if "deletionTimestamp" not in pod["metadata"]]
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def ending(self, component: str) -> list[str]:
        return [pod["metadata"]["name"] for pod in self._pods(component) if "deletionTimestamp" in pod["metadata"]]

    def _pods(self, component: str) -> list[dict[str, Any]]:
        return self.get("pods", selector_of(component))

    def everything(self) -> set[str]:
        """`kind/name` of all objects in the namespace, of every type that the cluster knows."""
        listed = self.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
        types = [name for name in listed if name not in _OF_THE_CLUSTER]
        return set(self.kubectl("get", ",".join(types), "--output=name", "--ignore-not-found", timeout=120).split())

    def api_versions(self) -> set[str]:
        return set(self.kubectl("api-versions").split())

    def kinds(self) -> set[str]:
        """Of all groups, as the last column of the table has them."""
        return {line.split()[-1] for line in self.kubectl("api-resources", "--no-headers").splitlines()}

    def log_tails(self, lines: int = 30) -> list[tuple[str, str]]:
        """What a failure is shown with."""
        pods = [name for name in self._tried("get", "pods", "--output=name").split() if name.startswith("pod/")]
        shown = {
            "pods": ["get", "pods", "--output=wide"],
            "events": ["get", "events", "--sort-by=.lastTimestamp"],
            **{pod: ["logs", pod, "--all-containers", "--prefix", f"--tail={lines}"] for pod in pods},
        }
        return [(name, self._tried(*arguments)) for name, arguments in shown.items()]

    def _tried(self, *arguments: str) -> str:
        try:
            return self.kubectl(*arguments)
        except AssertionError as error:
            return str(error)


@contextmanager
def own_namespace(folder: Path) -> Iterator[Cluster]:
    """In a namespace of its own, in the cluster that KUBECONFIG leads to."""
    cluster = Cluster(f"carillon-test-{secrets.token_hex(3)}", folder)
    labels = yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": _POD_SECURITY}}
    )
    cluster.kubectl("create", "-f", "-", stdin=labels)
    running.append(cluster)
    try:
        wait_until(
            lambda: cluster.everything() >= _IN_EVERY_NAMESPACE, "the namespace is furnished", 60, every=LOOK_AGAIN
        )
        yield cluster
    finally:
        running.remove(cluster)
        cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=true", "--timeout=180s", timeout=200)


# Command lines and values


def kubectl(namespace: str, *arguments: str) -> list[str]:
    return [kube_tools.find("kubectl") or "kubectl", f"--namespace={namespace}", *arguments]


def helm(namespace: str, *arguments: str) -> list[str]:
    return [kube_tools.find("helm") or "helm", f"--namespace={namespace}", *arguments]


def release_arguments(verb: str, values: Path) -> list[str]:
    return [verb, RELEASE, str(CHART), f"--values={values}", "--wait", f"--timeout={ROLLOUT_TIMEOUT}s"]


def selector_of(component: str) -> str:
    labels = {"name": "carillon", "instance": RELEASE, "component": component}
    return ",".join(f"app.kubernetes.io/{key}={value}" for key, value in labels.items())


def in_namespace(documents: Sequence[dict[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """The same objects, moved into another namespace where they are in one; without what makes namespaces."""
    moved = json.loads(json.dumps([one for one in documents if one and one["kind"] != "Namespace"]))
    for document in moved:
        if "namespace" in document["metadata"]:
            document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", ()):
            subject["namespace"] = namespace
    return list(moved)


def without_accounts(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same objects, for a dry run: that makes no ServiceAccount, and one that is not there is refused to a Pod."""
    changed = json.loads(json.dumps(list(documents)))
    for document in changed:
        if document["kind"] == "Pod":
            document["spec"].pop("serviceAccountName", None)
    return list(changed)


def known(
    documents: Sequence[dict[str, Any]], versions: set[str], kinds: set[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Those that the cluster has an API for, and what it has none for: some have a group and not all of its kinds."""

    def is_known(one: dict[str, Any]) -> bool:
        return one["apiVersion"] in versions and one["kind"] in kinds

    unknown = sorted({f"{one['kind']} ({one['apiVersion']})" for one in documents if not is_known(one)})
    return [one for one in documents if is_known(one)], unknown


def schedulable(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of nodes that take any pod."""
    return [
        node["metadata"]["name"]
        for node in nodes
        if not node["spec"].get("unschedulable")
        and not any(taint["effect"] != "PreferNoSchedule" for taint in node["spec"].get("taints", ()))
    ]
