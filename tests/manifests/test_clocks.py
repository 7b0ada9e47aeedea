"""Each clock is longer than the one inside of it (N5): no drain is cut off, no roll that drains is called stuck."""

import os
import re
from collections.abc import Iterator

import pytest

from app import hosting
from app.settings import Settings
from tests.support.manifests import ROOT, Manifest, Manifests, Pod
from tests.support.pod_settings import environment

#: Seconds that Nginx may take to end when its sessions have gone.
EDGE_MARGIN = 5
#: Where the edge's image has nginx/.
IN_THE_IMAGE = "/srv/carillon/nginx/"


def too_short(manifests: Manifests) -> list[str]:
    said: list[str] = []
    for pod in manifests.pods():
        if not pod.owner.startswith("Deployment"):
            continue
        deployment = manifests.one("Deployment", pod.owner.partition("/")[2])
        if pod.component == "gateway":
            said += [*gateway(manifests, pod), *roll(deployment)]
        elif pod.component == "edge":
            said += [*edge(manifests, pod), *roll(deployment)]
    return said


def gateway(manifests: Manifests, pod: Pod) -> Iterator[str]:
    container = pod.container("gateway")
    found = environment(manifests, container)
    grace = pod.spec["terminationGracePeriodSeconds"]
    if "lifecycle" in container:
        yield "SIGTERM is the one trigger of the drain: no hooks (N1)"
    if float(found["CARILLON_TERMINATION_GRACE"]) != grace:
        yield f"the gateway is told {found['CARILLON_TERMINATION_GRACE']} s and gets {grace}"
    clocks = {name: float(found[f"CARILLON_{name.upper()}"]) for name in ("drain_delay", "drain_timeout")}
    needed = hosting.graceful_timeout(Settings(**clocks)) + hosting.MASTER_MARGIN
    if grace < needed:
        yield f"a grace of {grace} s for a stop of up to {needed}"


def edge(manifests: Manifests, pod: Pod) -> Iterator[str]:
    container = pod.container("edge")
    found = environment(manifests, container)
    grace = pod.spec["terminationGracePeriodSeconds"]
    needed = int(found["CARILLON_EDGE_DRAIN_DELAY"]) + int(found["CARILLON_EDGE_DRAIN_TIMEOUT"]) + EDGE_MARGIN
    if grace < needed:
        yield f"the edge has a grace of {grace} s for {needed}"
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""])
    script = ROOT / "nginx" / command[0].removeprefix(IN_THE_IMAGE)
    if not (command[0].startswith(IN_THE_IMAGE) and script.is_file() and os.access(script, os.X_OK)):
        yield f"the edge's preStop is {command}"


def roll(deployment: Manifest) -> Iterator[str]:
    """A roll at its slowest: new pods start and are ready for a while, old ones drain. That is no failure."""
    spec = deployment["spec"]
    pod = spec["template"]["spec"]
    probe = pod["containers"][0]["startupProbe"]
    start = probe["periodSeconds"] * probe["failureThreshold"]
    slowest = start + spec["minReadySeconds"] + pod["terminationGracePeriodSeconds"]
    if spec["progressDeadlineSeconds"] <= slowest:
        yield f"{deployment['metadata']['name']}: a roll may stand still for {slowest} s"
    if not re.fullmatch(r"\d+%", str(spec["strategy"]["rollingUpdate"]["maxSurge"])):
        yield f"{deployment['metadata']['name']}: a surge by number does not grow with the fleet"
    if spec["strategy"]["rollingUpdate"]["maxUnavailable"] != 0:
        yield f"{deployment['metadata']['name']}: a roll takes pods away before there are others"


def test_every_clock_is_long_enough(manifests: Manifests) -> None:
    assert too_short(manifests) == []


def test_old_edges_and_old_gateways_go_at_the_same_time(manifests: Manifests) -> None:
    """A release rolls both. Who is told by an old edge while old gateways take clients may be told once more by one."""
    deployments = [
        each for each in manifests.of("Deployment") if each["metadata"]["name"].endswith(("-gateway", "-edge"))
    ]
    assert len({each["spec"]["minReadySeconds"] for each in deployments}) == 1


@pytest.mark.parametrize(
    ("target", "path", "value"),
    [
        ("Deployment/carillon-gateway", "spec/template/spec/terminationGracePeriodSeconds", 40),
        ("Deployment/carillon-gateway", "spec/template/spec/containers/0/env/0/value", "51"),
        ("Deployment/carillon-gateway", "spec/template/spec/containers/0/lifecycle", {"preStop": {"sleep": 5}}),
        ("Deployment/carillon-gateway", "spec/progressDeadlineSeconds", 100),
        ("Deployment/carillon-gateway", "spec/strategy/rollingUpdate/maxUnavailable", 1),
        ("Deployment/carillon-edge", "spec/template/spec/terminationGracePeriodSeconds", 39),
        ("Deployment/carillon-edge", "spec/template/spec/containers/0/lifecycle", ...),
        ("Deployment/carillon-edge", "spec/template/spec/containers/0/lifecycle/preStop/exec/command/0", "/drain"),
    ],
)
def test_a_clock_that_is_too_short_is_seen(production: Manifests, target: str, path: str, value: object) -> None:
    assert too_short(production.changed(target, path, value))


def test_a_longer_drain_needs_a_longer_grace(production: Manifests) -> None:
    target = next(
        f"ConfigMap/{c['metadata']['name']}" for c in production.of("ConfigMap") if "WEB_CONCURRENCY" in c["data"]
    )
    assert too_short(production.changed(target, "data/CARILLON_DRAIN_TIMEOUT", "60"))


def test_the_edges_image_has_nginx_where_the_hook_looks() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(rf"^COPY .*\bnginx {IN_THE_IMAGE.rstrip('/')}$", dockerfile, re.MULTILINE)
