"""All pods pass Kubernetes' restricted Pod Security Standard, have no token they do not need, and run a known image."""

import re
from collections.abc import Iterator

import pytest

from tests.support import manifests as support
from tests.support.manifests import Manifest, Manifests, Pod, identity

#: https://kubernetes.io/docs/concepts/security/pod-security-standards/: those of the baseline policy.
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}

#: Who talks to the API server, and so has a token.
WITH_TOKEN = {"deletion-cost"}

#: What the base's images are called until an overlay sets them: no valid reference, so that nothing is pulled.
UNSET = "{set-in-images}"


def not_restricted(pod: Pod) -> Iterator[str]:
    """What the restricted standard has against a pod."""
    host = {"hostNetwork", "hostPID", "hostIPC"} & {key for key, on in pod.spec.items() if on is True}
    yield from sorted(host)
    security = pod.spec.get("securityContext", {})
    for sysctl in security.get("sysctls", []):
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"sysctl {sysctl['name']} is not safe"
    for volume in pod.spec.get("volumes", []):
        if (kinds := volume.keys() - {"name"}) - VOLUMES:
            yield f"volume {volume['name']} is {kinds}"
    for container in [*pod.containers, *pod.spec.get("ephemeralContainers", [])]:
        for complaint in _container_not_restricted(security, container.get("securityContext", {})):
            yield f"{container['name']}: {complaint}"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{container['name']}: hostPort"


def _container_not_restricted(pod: Manifest, own: Manifest) -> Iterator[str]:
    both = pod | own
    if both.get("runAsNonRoot") is not True:
        yield "may run as root"
    if not isinstance(both.get("runAsUser"), int) or both["runAsUser"] == 0:
        yield "has no number of a user"
    if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccomp is not RuntimeDefault"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain rights"
    if own.get("privileged"):
        yield "is privileged"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
        yield "has capabilities"
    # Not asked for by the standard.
    if own.get("readOnlyRootFilesystem") is not True:
        yield "writes into its image"


def careless(manifests: Manifests, pod: Pod) -> Iterator[str]:
    """What this project asks for beyond the standard."""
    if pod.spec.get("enableServiceLinks") is not False:
        yield "gets variables of Services (N8)"
    account = pod.spec.get("serviceAccountName", "default")
    if account == "default" or manifests.get("ServiceAccount", account) is None:
        yield f"runs as ServiceAccount {account}, which is not among the manifests"
    if pod.spec.get("automountServiceAccountToken") is not (pod.component in WITH_TOKEN):
        yield "has a token without need, or needs one and has none"
    for container in pod.containers:
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            yield f"{container['name']}: no bound on memory"
        if "cpu" in container.get("resources", {}).get("limits", {}):
            yield f"{container['name']}: a limit of CPU is throttling, which holds up everybody"
        yield from image_problems(container["image"])


def image_problems(image: str) -> Iterator[str]:
    if image.endswith(f":{UNSET}"):
        return
    reference = re.fullmatch(
        r"[a-z0-9][a-z0-9._/-]*(?::\d+/[a-z0-9._/-]+)?(?P<tag>:[\w.-]+)?(?P<digest>@sha256:.+)?", image
    )
    if not reference:
        yield f"image {image} is no reference"
    elif not reference["digest"] and reference["tag"] in (None, ":latest"):
        yield f"image {image} may be another one tomorrow"


def insecure(manifests: Manifests) -> list[str]:
    said = []
    for pod in manifests.pods():
        said += [f"{pod.owner}: {complaint}" for complaint in (*not_restricted(pod), *careless(manifests, pod))]
    for account in manifests.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            said.append(f"{identity(account)} gives its token to any pod that does not refuse it")
    return said


def test_every_pod_is_restricted(manifests: Manifests) -> None:
    assert insecure(manifests) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("securityContext/runAsNonRoot", False),
        ("securityContext/runAsUser", 0),
        ("securityContext/seccompProfile/type", "Unconfined"),
        ("securityContext/sysctls", [{"name": "net.core.somaxconn", "value": "4096"}]),
        ("containers/0/securityContext/runAsUser", 0),
        ("containers/0/securityContext/allowPrivilegeEscalation", ...),
        ("containers/0/securityContext/capabilities/add", ["NET_ADMIN"]),
        ("containers/0/securityContext/readOnlyRootFilesystem", False),
        ("containers/0/securityContext/privileged", True),
        ("containers/0/image", "registry.example.com:5000/carillon-gateway:latest"),
        ("containers/0/image", "registry.example.com:5000/carillon-gateway"),
        ("containers/0/resources/limits/cpu", "1"),
        ("containers/0/ports/0/hostPort", 8000),
        ("initContainers", [{"name": "more", "image": "more:1", "resources": {"limits": {"memory": "1Mi"}}}]),
        ("volumes/-", {"name": "host", "hostPath": {"path": "/"}}),
        ("hostNetwork", True),
        ("enableServiceLinks", ...),
        ("automountServiceAccountToken", True),
        ("serviceAccountName", "default"),
    ],
)
def test_a_right_too_many_is_seen(production: Manifests, path: str, value: object) -> None:
    assert insecure(production.changed("Deployment/carillon-gateway", f"spec/template/spec/{path}", value))


def test_only_who_needs_it_has_rights(manifests: Manifests) -> None:
    for binding in manifests.of("RoleBinding", "ClusterRoleBinding"):
        assert [subject["name"] for subject in binding["subjects"]] == ["carillon-deletion-cost"]
    rules = [rule for role in manifests.of("Role", "ClusterRole") for rule in role["rules"]]
    assert all(rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]} for rule in rules)
    assert manifests.of("ClusterRole") == []


def test_images_are_to_be_set_where_there_is_no_default(manifests: Manifests) -> None:
    """Nobody runs an image of ours that somebody else has pushed to a public registry."""
    ours = {c["image"] for pod in manifests.pods() for c in pod.containers if "carillon-" in c["image"]}
    if manifests.name.startswith("k8s production"):
        assert ours == {f"carillon-gateway:{UNSET}", f"carillon-edge:{UNSET}"}
    elif manifests.name in ("k8s dev", "chart trial"):
        assert ours in [{f"carillon-gateway:{tag}", f"carillon-edge:{tag}"} for tag in ("dev", "trial")]
    else:
        assert all("/" in image for image in ours)


def test_images_of_others_are_those_of_compose(manifests: Manifests) -> None:
    """What is tried on one machine is what runs in the cluster."""
    compose = re.findall(r"\$\{\w+_IMAGE:-([^}]+)\}", (support.ROOT / "compose.yaml").read_text())
    images = {c["image"] for pod in manifests.pods() for c in pod.containers if c["name"] in ("valkey", "exporter")}
    assert images <= set(compose)


def test_the_trials_valkey_listens_on_all_families(manifests: Manifests) -> None:
    """Its own default is all addresses; `--bind *` would leave IPv6 out, and some clusters have nothing else."""
    arguments = [arg for pod in manifests.pods() for c in pod.containers if c["name"] == "valkey" for arg in c["args"]]
    assert "--bind" not in arguments


def test_the_namespace_refuses_other_pods(production: Manifests) -> None:
    labels = production.one("Namespace", "carillon")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_overlay_of_ones_own_names_images_and_namespace() -> None:
    support.parts.require("kubectl")
    own = support.overlaid(
        "own",
        "production",
        namespace="elsewhere",
        images=[
            {"name": "carillon-gateway", "newName": "registry.example.com/a", "newTag": "1.0"},
            {"name": "carillon-edge", "newName": "registry.example.com/b", "digest": "sha256:" + "0" * 64},
        ],
    )
    images = {container["image"] for pod in own.pods() for container in pod.containers}
    assert {"registry.example.com/a:1.0", "registry.example.com/b@sha256:" + "0" * 64} < images
    assert {found["metadata"].get("namespace") for found in own.objects} == {"elsewhere", None}
    assert [found["metadata"]["name"] for found in own.of("Namespace")] == ["elsewhere"]
    assert insecure(own) == []
