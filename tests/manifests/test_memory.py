"""A pod that is full fits into its memory: the kernel would end it, and every client of it, at once."""

import re

import pytest

from tests.support.manifests import Manifests, Pod, identity
from tests.support.pod_settings import environment

#: Bytes of Nginx and the kernel for one WebSocket whose request head takes a large buffer, as cookies may make it.
EDGE_BYTES = 42_000
#: Bytes of a gateway's worker, of an idle session with its socket, and of the pod's master.
WORKER, SESSION, MASTER = 100_000_000, 8_000, 50_000_000
#: Sessions that a worker must have room for, where nothing bounds them.
SESSIONS = 10_000


def bytes_of(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)?", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def in_memory(pod: Pod) -> int:
    """Volumes that count as the container's memory."""
    volumes = [volume["emptyDir"] for volume in pod.spec["volumes"] if "emptyDir" in volume]
    return sum(bytes_of(volume["sizeLimit"]) for volume in volumes if volume.get("medium") == "Memory")


def too_little(manifests: Manifests) -> list[str]:
    said = []
    for pod in manifests.pods():
        if pod.owner.startswith("Deployment") and pod.component in ("edge", "gateway"):
            container = pod.container(pod.component)
            found = environment(manifests, container)
            limit = bytes_of(container["resources"]["limits"]["memory"])
            needed = in_memory(pod) + (of_edge(found) if pod.component == "edge" else of_gateway(found))
            if manifests.name != "k8s dev" and needed > limit:  # that one is small by intent
                said.append(f"{pod.owner} may need {needed >> 20} Mi of {limit >> 20}")
    return said


def of_edge(found: dict[str, str]) -> int:
    workers, connections = (int(found[f"CARILLON_EDGE_{name}"]) for name in ("WORKERS", "CONNECTIONS"))
    return workers * (connections // 2) * EDGE_BYTES


def of_gateway(found: dict[str, str]) -> int:
    sessions = int(found.get("CARILLON_MAX_CONNECTIONS", 0)) or SESSIONS
    return MASTER + int(found["WEB_CONCURRENCY"]) * (WORKER + sessions * SESSION)


def test_a_full_pod_fits(manifests: Manifests) -> None:
    assert too_little(manifests) == []


@pytest.mark.parametrize("component", ["edge", "gateway"])
def test_too_little_memory_is_seen(production: Manifests, component: str) -> None:
    path = "spec/template/spec/containers/0/resources/limits/memory"
    assert too_little(production.changed(f"Deployment/carillon-{component}", path, "256Mi"))


def test_too_many_connections_are_seen(production: Manifests) -> None:
    target = next(identity(c) for c in production.of("ConfigMap") if "CARILLON_EDGE_PORT" in c["data"])
    assert too_little(production.changed(target, "data/CARILLON_EDGE_CONNECTIONS", "65536"))
