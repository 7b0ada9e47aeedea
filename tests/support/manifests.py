"""What Helm and Kustomize make of the repository: rendered once in a process, as plain objects to look into."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support import parts

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "carillon"
OVERLAYS = ROOT / "k8s" / "overlays"
COMPONENTS = ROOT / "k8s" / "components"

Manifest = dict[str, Any]

#: How long one rendering may take.
_TIMEOUT = 60  # seconds

#: Overlays with components, as a user would write them; each component is in one of them.
MIXTURES = {
    "production+autoscaling": ("autoscaling", "deletion-cost", "ingress"),
    "production+keda": ("keda", "gateway-api", "small-surge", "two-workers"),
}


@dataclass(frozen=True)
class Pod:
    """A pod that one of the objects makes."""

    owner: str
    labels: Mapping[str, str]
    spec: Manifest

    @property
    def component(self) -> str:
        return self.labels.get("app.kubernetes.io/component", "")

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> Manifest:
        return next(container for container in self.containers if container["name"] == name)

    def ports(self) -> dict[str, int]:
        """Name -> number."""
        return {port["name"]: port["containerPort"] for c in self.containers for port in c.get("ports", [])}


@dataclass(frozen=True)
class Manifests:
    """All objects of one rendering."""

    name: str
    objects: tuple[Manifest, ...]

    def of(self, *kinds: str) -> list[Manifest]:
        return [found for found in self.objects if found["kind"] in kinds]

    def get(self, kind: str, name: str) -> Manifest | None:
        return next((found for found in self.of(kind) if found["metadata"]["name"] == name), None)

    def one(self, kind: str, name: str) -> Manifest:
        found = self.get(kind, name)
        assert found is not None, f"{self.name} has no {kind} {name}"
        return found

    def pods(self) -> Iterator[Pod]:
        for owner in self.of("Deployment", "StatefulSet", "DaemonSet", "Job"):
            template = owner["spec"]["template"]
            yield Pod(identity(owner), template["metadata"]["labels"], template["spec"])
        for pod in self.of("Pod"):
            yield Pod(identity(pod), pod["metadata"]["labels"], pod["spec"])

    def changed(self, target: str, path: str, value: Any) -> "Manifests":
        """The same with one value of the object `Kind/name` set; a `value` of `...` takes it away.

        The path goes by keys and indices: `spec/ports/0/port`. A `~` is a slash in a key; `-` at the end appends."""
        objects = deepcopy(self.objects)
        (found,) = (o for o in objects if identity(o) == target)
        *steps, last = (step.replace("~", "/") for step in path.split("/"))
        inner: Any = found
        for step in steps:
            inner = inner[int(step)] if isinstance(inner, list) else inner.setdefault(step, {})
        if value is ...:
            del inner[int(last) if isinstance(inner, list) else last]
        elif last == "-":
            inner.append(value)
        else:
            inner[int(last) if isinstance(inner, list) else last] = value
        return Manifests(f"{self.name} with {target}/{path}={value}", tuple(objects))

    def without(self, target: str) -> "Manifests":
        kept = tuple(found for found in self.objects if identity(found) != target)
        assert len(kept) == len(self.objects) - 1, f"{self.name} has no {target}"
        return Manifests(f"{self.name} without {target}", kept)


def identity(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels. An empty one takes all."""
    unknown = selector.keys() - {"matchLabels"}
    assert not unknown, f"selectors here are plain matchLabels, not {unknown}"
    return selector.get("matchLabels", {}).items() <= labels.items()


def sets() -> list[str]:
    """The names of everything that is rendered: overlays, mixtures of theirs, and the chart's value sets."""
    overlays = [f"k8s {folder.name}" for folder in sorted(OVERLAYS.iterdir())]
    return (
        overlays + [f"k8s {name}" for name in MIXTURES] + [f"chart {f.stem}" for f in sorted(CHART.glob("ci/*.yaml"))]
    )


@cache
def rendered(name: str) -> Manifests:
    """The objects of one of the `sets()`."""
    kind, _, which = name.partition(" ")
    if kind == "chart":
        return chart(name, "--values", str(CHART / "ci" / f"{which}.yaml"))
    if which in MIXTURES:
        overlay = which.partition("+")[0]
        return overlaid(name, overlay, MIXTURES[which], namespace="carillon")
    return kustomized(name, OVERLAYS / which)


def render_all() -> None:
    """Fills the cache, several at a time. What cannot be rendered fails the tests that are about it."""
    with ThreadPoolExecutor(4) as pool:
        for name in sets():
            pool.submit(rendered, name)


def chart(name: str, *options: str) -> Manifests:
    """What `helm template` makes of the chart as release `carillon` in namespace `carillon`."""
    command = [parts.require("helm"), "template", "carillon", str(CHART), "--namespace", "carillon", *options]
    return Manifests(name, _objects(_output(command)))


def kustomized(name: str, folder: Path) -> Manifests:
    """What `kubectl kustomize` makes of a folder."""
    return Manifests(name, _objects(_output([parts.require("kubectl"), "kustomize", str(folder)])))


def overlaid(name: str, overlay: str, components: tuple[str, ...] = (), **more: Any) -> Manifests:
    """What an overlay of one's own makes of one of the repository's, with components."""
    with tempfile.TemporaryDirectory() as folder:
        beside = os.path.relpath(OVERLAYS.parent, Path(folder).resolve())
        text = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{beside}/overlays/{overlay}"],
            "components": [f"{beside}/components/{component}" for component in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(text | more))
        return kustomized(name, Path(folder).resolve())


class RenderingError(Exception):
    """The tool refused; the text is what it said."""


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise RenderingError("\n".join(line for line in done.stderr.splitlines() if not line.startswith("level=INFO")))
    return done.stdout


def _objects(text: str) -> tuple[Manifest, ...]:
    return tuple(found for found in yaml.load_all(text, yaml.CSafeLoader) if found)
