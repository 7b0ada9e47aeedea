"""The settings in the manifests are ones that the gateway and the edge take, and no secret is among them."""

import os
import re
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest

from app import hosting
from app.broker import url
from app.http import health
from app.settings import SECRETS, Settings, SettingsError, load
from tests.support.manifests import ROOT, Manifest, Manifests, Pod, identity
from tests.support.pod_settings import SECRET, environment, mount

#: Sets with the demo and its tokens, for trials (N7).
WITH_DEMO = ("k8s dev", "chart trial")


def of_component(manifests: Manifests, component: str) -> tuple[Pod, Manifest]:
    pod = next(pod for pod in manifests.pods() if pod.component == component and pod.owner.startswith("Deployment"))
    return pod, pod.container(component)


def gateway_settings(manifests: Manifests, folder: Path) -> Settings:
    """What the gateway makes of its environment and files. Raises SettingsError."""
    pod, container = of_component(manifests, "gateway")
    found = environment(manifests, container)
    mount(manifests, pod, container, folder)
    places = tuple(place["mountPath"] for place in container["volumeMounts"])
    found |= {name: f"{folder}{value}" for name, value in found.items() if value.startswith(places)}
    with patch.dict(os.environ, found, clear=True):
        return load()


def edge_refusal(manifests: Manifests) -> str:
    """What the edge's renderer says against its environment; empty: nothing."""
    _, container = of_component(manifests, "edge")
    found = environment(manifests, container) | {"PATH": os.environ["PATH"]}
    command = ["sh", str(ROOT / "nginx" / "render.sh"), "--get", "GATEWAYS"]
    done = subprocess.run(command, env=found, capture_output=True, text=True, check=False, timeout=30)
    return done.stderr if done.returncode else ""


def has_edge(manifests: Manifests) -> bool:
    return any(pod.component == "edge" for pod in manifests.pods())


def test_the_gateway_starts_with_them(manifests: Manifests, tmp_path: Path) -> None:
    settings = gateway_settings(manifests, tmp_path)
    _, container = of_component(manifests, "gateway")
    workers = int(environment(manifests, container)["WEB_CONCURRENCY"])
    hosting.check_workers(settings, workers)
    hosting.check_timeouts(settings, hosting.graceful_timeout(settings))
    if "rediss" not in settings.broker_url:  # its certificate is the user's
        url.parse(settings.broker_url)
    assert settings.dev is (manifests.name in WITH_DEMO)


def test_the_ports_are_those_that_it_listens_on(manifests: Manifests, tmp_path: Path) -> None:
    settings = gateway_settings(manifests, tmp_path)
    pod, _ = of_component(manifests, "gateway")
    assert pod.ports() == {"public": settings.public_port, "internal": settings.internal_port}


def test_tokens_and_keys_come_from_the_secret(production: Manifests, tmp_path: Path) -> None:
    settings = gateway_settings(production, tmp_path)
    assert [secret.get_secret_value() for secret in settings.token_hmac_secret] == [SECRET["token-hmac-secret"]]
    assert [key.get_secret_value() for key in settings.api_keys] == [SECRET["api-keys"]]
    assert settings.broker_url == SECRET["redis-url"]


@pytest.mark.parametrize(("name", "value"), [("CARILLON_DRAIN_TIMOUT", "30"), ("CARILLON_DRAIN_TIMEOUT", "soon")])
def test_a_setting_that_nobody_knows_is_seen(production: Manifests, tmp_path: Path, name: str, value: str) -> None:
    target = next(identity(c) for c in production.of("ConfigMap") if "WEB_CONCURRENCY" in c["data"])
    with pytest.raises(SettingsError, match=name):
        gateway_settings(production.changed(target, f"data/{name}", value), tmp_path)


def test_the_edge_starts_with_them(manifests: Manifests) -> None:
    if has_edge(manifests):
        assert edge_refusal(manifests) == ""


@pytest.mark.parametrize(("name", "value"), [("CARILLON_EDGE_BALANCE", "cookies"), ("CARILLON_EDGE_DRAIN", "5")])
def test_a_setting_that_the_edge_does_not_know_is_seen(production: Manifests, name: str, value: str) -> None:
    target = next(identity(c) for c in production.of("ConfigMap") if "CARILLON_EDGE_PORT" in c["data"])
    assert name in edge_refusal(production.changed(target, f"data/{name}", value))


def test_the_edge_finds_the_gateways_by_full_names(manifests: Manifests) -> None:
    if not has_edge(manifests):
        return
    _, container = of_component(manifests, "edge")
    found = environment(manifests, container)
    service = manifests.one("Service", "carillon-gateway-headless")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    host = r"carillon-gateway-headless\.carillon\.svc\.[a-z.]+"
    assert re.fullmatch(f"{host}:8000", found["CARILLON_EDGE_GATEWAYS"])
    assert re.fullmatch(f"{host}:9000", found["CARILLON_EDGE_INTERNAL_GATEWAYS"])
    assert {port["port"] for port in service["ports"]} == {8000, 9000}


def told_secrets(manifests: Manifests) -> list[str]:
    """Values that belong into a Secret and stand in a ConfigMap or a plain variable."""
    plain = [(identity(c), name, str(value)) for c in manifests.of("ConfigMap") for name, value in c["data"].items()]
    for pod in manifests.pods():
        for container in pod.containers:
            plain += [(pod.owner, v["name"], v.get("value", "")) for v in container.get("env", [])]
    names = {f"CARILLON_{name.upper()}" for name in SECRETS}
    login = re.compile(r"\w+://[^/\s]*:[^/\s]+@")
    return [f"{where}: {name}" for where, name, value in plain if (name in names and value) or login.search(value)]


def test_no_secret_is_told(manifests: Manifests) -> None:
    assert told_secrets(manifests) == []
    assert manifests.of("Secret") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("CARILLON_API_KEYS", "key"), ("CARILLON_REDIS_URL", "redis://:password@redis.example.com")],
)
def test_a_told_secret_is_seen(production: Manifests, name: str, value: str) -> None:
    target = next(identity(c) for c in production.of("ConfigMap") if "WEB_CONCURRENCY" in c["data"])
    assert told_secrets(production.changed(target, f"data/{name}", value))


def probe_problems(manifests: Manifests) -> list[str]:
    """Three probes, three questions: only the last one restarts the pod, so it must not depend on anything remote."""
    pod, container = of_component(manifests, "gateway")
    wanted = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    said = [
        f"{pod.owner}: {kind}"
        for kind, path in wanted.items()
        if container.get(kind, {}).get("httpGet") != {"path": path, "port": "internal"}
    ]
    live = container.get("livenessProbe", {"periodSeconds": 0, "failureThreshold": 0})
    if live["periodSeconds"] * live["failureThreshold"] < hosting.WORKER_TIMEOUT:
        said.append("the kubelet is sooner than gunicorn, which ends one hung worker of several")
    return said


def test_the_probes_are_three(manifests: Manifests) -> None:
    assert probe_problems(manifests) == []


def test_the_gateway_has_what_they_ask_for() -> None:
    assert {"/startupz", "/readyz", "/healthz"} <= {getattr(route, "path", "") for route in health.router.routes}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("livenessProbe/httpGet/path", "/readyz"),
        ("livenessProbe/failureThreshold", 1),
        ("readinessProbe/httpGet/port", "public"),
        ("startupProbe", ...),
    ],
)
def test_a_probe_that_asks_something_else_is_seen(production: Manifests, path: str, value: object) -> None:
    target = f"spec/template/spec/containers/0/{path}"
    assert probe_problems(production.changed("Deployment/carillon-gateway", target, value))
