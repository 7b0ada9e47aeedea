"""What an object names is there: ports, selectors, Services, accounts, ConfigMaps and their keys, the Secret's keys."""

from collections.abc import Iterator

import pytest

from tests.support.manifests import Manifest, Manifests, Pod, identity, matches

#: Made by the user, as the documents say; everything else must be among the manifests.
SECRET_KEYS = {"token-hmac-secret", "api-keys", "redis-url", "ca.crt"}


def dangling(manifests: Manifests) -> list[str]:
    """Every name that leads nowhere."""
    pods = list(manifests.pods())
    said = [
        *namespaces(manifests),
        *selectors(manifests, pods),
        *routes(manifests),
        *targets(manifests),
        *monitors(manifests, pods),
    ]
    for pod in pods:
        said += [f"{pod.owner}: {complaint}" for complaint in (*configuration(manifests, pod), *own_ports(pod))]
    return said


def namespaces(manifests: Manifests) -> Iterator[str]:
    """Whoever adds a component says the namespace again: what has none lands where kubectl happens to be."""
    found = {o["metadata"].get("namespace") for o in manifests.objects if o["kind"] != "Namespace"}
    if len(found) != 1 or None in found:
        yield f"namespaces are {found}"


def selectors(manifests: Manifests, pods: list[Pod]) -> Iterator[str]:
    for workload in manifests.of("Deployment", "StatefulSet"):
        if not matches(workload["spec"]["selector"], workload["spec"]["template"]["metadata"]["labels"]):
            yield f"{identity(workload)} does not select its own pods"
    for service in manifests.of("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        taken = [pod for pod in pods if matches(selector, pod.labels)]
        if len(taken) != 1:
            yield f"{identity(service)} leads to {[pod.owner for pod in taken]}"
        for port in service["spec"]["ports"]:
            if any(port["targetPort"] not in pod.ports() for pod in taken):
                yield f"{identity(service)}: nobody has a port {port['targetPort']}"
    for budget in manifests.of("PodDisruptionBudget"):
        if sum(matches(budget["spec"]["selector"], pod.labels) for pod in pods) != 1:
            yield f"{identity(budget)} is not about one kind of pod"


def own_ports(pod: Pod) -> Iterator[str]:
    for container in pod.containers:
        names = {port["name"] for port in container.get("ports", [])}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container.get(kind, {}).get("httpGet", {}).get("port")
            if asked is not None and asked not in names:
                yield f"{container['name']}: {kind} asks port {asked}"
    numbers = [port["containerPort"] for container in pod.containers for port in container.get("ports", [])]
    if len(numbers) != len(set(numbers)):
        yield f"ports are taken twice: {numbers}"


def configuration(manifests: Manifests, pod: Pod) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
    for container in pod.containers:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{container['name']} mounts {mount['name']}"
        for source in container.get("envFrom", []):
            yield from _missing(manifests, source.get("configMapRef"), source.get("secretRef"))
        for variable in container.get("env", []):
            asked = variable.get("valueFrom", {})
            yield from _missing(manifests, asked.get("configMapKeyRef"), asked.get("secretKeyRef"))
    for volume in pod.spec.get("volumes", []):
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        for source in sources:
            yield from _missing(manifests, source.get("configMap"), source.get("secret"))


def _missing(manifests: Manifests, config_map: Manifest | None, secret: Manifest | None) -> Iterator[str]:
    if config_map and not config_map.get("optional"):
        found = manifests.get("ConfigMap", config_map["name"])
        if found is None:
            yield f"there is no ConfigMap {config_map['name']}"
        else:
            yield from (f"{identity(found)} has no {key}" for key in _keys(config_map) - found["data"].keys())
    if secret and not secret.get("optional"):
        yield from (f"no document speaks of {key} in a Secret" for key in _keys(secret) - SECRET_KEYS)


def _keys(reference: Manifest) -> set[str]:
    return {reference["key"]} if "key" in reference else {item["key"] for item in reference.get("items", [])}


def routes(manifests: Manifests) -> Iterator[str]:
    """Ingress and HTTPRoute lead to ports of Services."""
    wanted: list[tuple[Manifest, str, object]] = []
    for ingress in manifests.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            backends = [path["backend"]["service"] for path in rule["http"]["paths"]]
            wanted += [(ingress, b["name"], b["port"].get("name", b["port"].get("number"))) for b in backends]
    for route in manifests.of("HTTPRoute"):
        backends = [backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]]
        wanted += [(route, backend["name"], backend["port"]) for backend in backends]
    for source, name, port in wanted:
        service = manifests.get("Service", name)
        known = [value for p in (service["spec"]["ports"] if service else []) for value in (p["name"], p["port"])]
        if port not in known:
            yield f"{identity(source)} leads to {name}:{port}"


def targets(manifests: Manifests) -> Iterator[str]:
    """What is scaled, and who is bound to a role."""
    for scaler in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        if manifests.get(target.get("kind", "Deployment"), target["name"]) is None:
            yield f"{identity(scaler)} scales {target}"
    for binding in manifests.of("RoleBinding"):
        names = [(binding["roleRef"]["kind"], binding["roleRef"]["name"])]
        names += [(subject["kind"], subject["name"]) for subject in binding["subjects"]]
        yield from (f"{identity(binding)}: no {kind} {name}" for kind, name in names if not manifests.get(kind, name))
        yield from (
            f"{identity(binding)} is about another namespace"
            for subject in binding["subjects"]
            if subject.get("namespace") != binding["metadata"].get("namespace")
        )


def monitors(manifests: Manifests, pods: list[Pod]) -> Iterator[str]:
    for monitor in manifests.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]
        found = [s for s in manifests.of("Service") if matches(selector, s["metadata"]["labels"])]
        if len(found) != 1:
            yield f"{identity(monitor)} takes {[identity(service) for service in found]}"
        names = {port["name"] for service in found for port in service["spec"]["ports"]}
        yield from (f"{identity(monitor)}: {e['port']}" for e in monitor["spec"]["endpoints"] if e["port"] not in names)
    for monitor in manifests.of("PodMonitor"):
        taken = [pod for pod in pods if matches(monitor["spec"]["selector"], pod.labels)]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if not taken or any(endpoint["port"] not in pod.ports() for pod in taken):
                yield f"{identity(monitor)} finds no pod with a port {endpoint['port']}"


def test_what_is_scraped_bears_the_name_of_its_release(manifests: Manifests) -> None:
    """Alerts are about a `job`: two releases in a namespace must be two, or one that is away hides behind the other."""
    for monitor in manifests.of("ServiceMonitor", "PodMonitor"):
        of = monitor["spec"]["selector"]["matchLabels"]
        wanted = f"{of['app.kubernetes.io/instance']}/carillon-{of['app.kubernetes.io/component']}"
        for endpoint in monitor["spec"].get("endpoints", monitor["spec"].get("podMetricsEndpoints")):
            assert [r["replacement"] for r in endpoint["relabelings"] if r["targetLabel"] == "job"] == [wanted]


def test_every_name_leads_somewhere(manifests: Manifests) -> None:
    assert dangling(manifests) == []


GATEWAY = "spec/template/spec/containers/0"


@pytest.mark.parametrize(
    ("target", "path", "value"),
    [
        ("Deployment/carillon-gateway", f"{GATEWAY}/ports/0/name", "web"),
        ("Deployment/carillon-gateway", f"{GATEWAY}/ports/1/containerPort", 8000),
        ("Deployment/carillon-gateway", f"{GATEWAY}/readinessProbe/httpGet/port", "status"),
        ("Deployment/carillon-gateway", f"{GATEWAY}/envFrom/0/configMapRef/name", "carillon-gateway"),
        ("Deployment/carillon-gateway", f"{GATEWAY}/env/1/valueFrom/secretKeyRef/key", "redis"),
        ("Deployment/carillon-gateway", f"{GATEWAY}/volumeMounts/0/name", "settings"),
        ("Deployment/carillon-gateway", "spec/template/spec/volumes/0/projected/sources/0/configMap/name", "file"),
        ("Deployment/carillon-gateway", "spec/template/spec/volumes/0/projected/sources/1/secret/items/0/key", "hmac"),
        ("Deployment/carillon-gateway", "spec/template/metadata/labels/app.kubernetes.io~component", "gate"),
        ("Service/carillon-gateway", "spec/selector/app.kubernetes.io~component", "gate"),
        ("Service/carillon-gateway-headless", "spec/ports/1/targetPort", "metrics"),
        ("Service/carillon-gateway", "metadata/labels/service.kubernetes.io~headless", ""),
        ("PodDisruptionBudget/carillon-edge", "spec/selector/matchLabels", {}),
        ("ServiceMonitor/carillon-gateway", "spec/endpoints/0/port", "metrics"),
        ("PodMonitor/carillon-edge", "spec/podMetricsEndpoints/0/port", "internal"),
        ("HorizontalPodAutoscaler/carillon-gateway", "spec/scaleTargetRef/name", "gateway"),
        ("RoleBinding/carillon-deletion-cost", "subjects/0/name", "default"),
        ("RoleBinding/carillon-deletion-cost", "subjects/0/namespace", "default"),
        ("Ingress/carillon", "metadata/namespace", ...),
        ("Ingress/carillon", "spec/rules/0/http/paths/0/backend/service/port/name", "https"),
    ],
)
def test_a_name_that_leads_nowhere_is_seen(autoscaled: Manifests, target: str, path: str, value: object) -> None:
    assert dangling(autoscaled.changed(target, path, value))


@pytest.mark.parametrize("target", ["ServiceAccount/carillon-deletion-cost", "Service/carillon-edge"])
def test_a_missing_object_is_seen(autoscaled: Manifests, target: str) -> None:
    assert dangling(autoscaled.without(target))
