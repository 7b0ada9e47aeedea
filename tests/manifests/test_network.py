"""The NetworkPolicies open exactly the paths of the table below: all pairs and ports are tried, both ways."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import pytest

from tests.support.manifests import Manifest, Manifests, matches

HERE = "carillon"


@dataclass(frozen=True)
class Party:
    """Somebody who may send or be sent something. Without a namespace: an address outside of the cluster."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = ""


#: Who else there is. `backend` is a pod of the user's beside Carillon, `impostor` one elsewhere with labels of ours.
OTHERS = (
    Party("backend", {"app": "backend"}, HERE),
    Party("prometheus", {"app": "prometheus"}, "monitoring"),
    Party("dns", {"k8s-app": "kube-dns"}, "kube-system"),
    Party(
        "impostor",
        {
            "app.kubernetes.io/name": "carillon",
            "app.kubernetes.io/instance": "carillon",
            "app.kubernetes.io/component": "edge",
        },
        "elsewhere",
    ),
    Party("outside"),
)

#: From, to (`ANYBODY`: whoever it is), port.
Path = tuple[str, str, str]
ANYBODY = "*"


def paths(source: str, target: str, *ports: str) -> set[Path]:
    return {(source, target, port) for port in ports}


DNS = ("53/UDP", "53/TCP")
#: Whatever is not here is closed. Each part of an installation opens its own.
TABLE: dict[str, set[Path]] = {
    # Redis and DNS servers may be at any address.
    "gateway": paths("gateway", ANYBODY, *DNS) | paths("prometheus", "gateway", "9000/TCP"),
    "redis": paths("gateway", ANYBODY, "6379/TCP"),
    # Clients come from anywhere, whatever stands in front. Port 9000: the goodbyes that a draining edge asks for.
    "edge": paths(ANYBODY, "edge", "8080/TCP")
    | paths("edge", "gateway", "8000/TCP", "9000/TCP")
    | paths("edge", ANYBODY, *DNS),
    "exporter": paths("prometheus", "edge", "9113/TCP"),
    "valkey": paths("gateway", "valkey", "6379/TCP"),
    # The API server is at an address outside.
    "deletion-cost": paths("deletion-cost", "gateway", "9000/TCP")
    | paths("deletion-cost", ANYBODY, "443/TCP", "6443/TCP"),
    # `helm test` publishes, and listens through the edge.
    "test": paths("test", "gateway", "9000/TCP") | paths("test", "edge", "8080/TCP") | paths("test", ANYBODY, *DNS),
}
#: What single sets open beyond that, or leave closed.
MORE: dict[str, set[Path]] = {
    # Managed clusters with a port for each primary.
    "k8s production-cluster-redis": paths("gateway", ANYBODY, "11000/TCP", "13047/TCP"),
    "chart gateway-api": paths("front", "edge", "8080/TCP") | paths("test", "edge", "8080/TCP"),
    # Without Nginx `helm test` connects to the gateways, as clients do.
    "chart no-nginx": paths("front", "gateway", "8000/TCP") | paths("test", "gateway", "8000/TCP"),
    "chart redis-tls": paths("gateway", ANYBODY, "6380/TCP"),
    "chart sentinel": paths("gateway", ANYBODY, "26379/TCP"),
    # Redis, a JWKS, DNS where they are; TLS at the edge, whose PROXY protocol `helm test` does not speak.
    "chart production": paths("gateway", "outside", "6379/TCP", "443/TCP")
    | paths(ANYBODY, "edge", "8443/TCP")
    | paths("caller", "gateway", "9000/TCP")
    | paths("test", "gateway", "8000/TCP")
    | {(name, "dns", port) for name in ("gateway", "edge", "test") for port in DNS},
}
LESS: dict[str, set[Path]] = {
    "chart gateway-api": paths(ANYBODY, "edge", "8080/TCP"),
    "chart redis-tls": TABLE["redis"],
    "chart production": {(name, ANYBODY, port) for name in ("gateway", "edge", "test") for port in DNS}
    | TABLE["redis"]
    | paths("test", "edge", "8080/TCP"),
}
#: Who is there in single sets only: what stands in front, or calls the server API from another namespace.
SPECIAL = {
    "chart gateway-api": Party("front", {}, "gateways"),
    "chart no-nginx": Party("front", {}, "ingress"),
    "chart production": Party("caller", {}, "backend"),
}

#: Tried besides all ports that pods listen on.
PORTS = (22, 53, 80, 443, 6379, 6380, 6443, 8000, 8080, 9000, 10250, 11000, 13047, 13048, 26379)


def parties(manifests: Manifests) -> list[Party]:
    ours = [Party(pod.component, dict(pod.labels), HERE) for pod in manifests.pods()]
    special = [SPECIAL[manifests.name]] if manifests.name in SPECIAL else []
    return [*{party.name: party for party in ours}.values(), *OTHERS, *special]


def is_ours(party: Party) -> bool:
    return party not in OTHERS and party not in SPECIAL.values()


def tried(manifests: Manifests) -> list[str]:
    numbers = {*PORTS, *(number for pod in manifests.pods() for number in pod.ports().values())}
    return [f"{number}/{protocol}" for number, protocol in product(sorted(numbers), ("TCP", "UDP"))]


def expected(manifests: Manifests) -> set[tuple[str, str, str, str]]:
    """The table for this set: direction, from, to, port. Each end must have its own lines: who lets anybody in is not
    thereby somebody whom all of ours may reach."""
    everybody = parties(manifests)
    names = {party.name for party in everybody}
    ours = {party.name for party in everybody if is_ours(party)}
    there = ours | {container["name"] for pod in manifests.pods() for container in pod.containers}
    there |= set() if "valkey" in there else {"redis"}
    table = {path for part, opened in TABLE.items() if part in there for path in opened}
    table = (table | MORE.get(manifests.name, set())) - LESS.get(manifests.name, set())
    egress = {("egress", a, target, port) for a, b, port in table if a in ours for target in _meant(b, names)}
    return egress | {("ingress", source, b, port) for a, b, port in table if b in ours for source in _meant(a, names)}


def _meant(name: str, names: set[str]) -> set[str]:
    return names if name == ANYBODY else {name} & names


def opened(manifests: Manifests) -> set[tuple[str, str, str, str]]:
    """What the policies of our pods let pass: direction, from, to, port."""
    policies = manifests.of("NetworkPolicy")
    everybody = parties(manifests)
    ours = [party for party in everybody if is_ours(party)]
    return {
        (direction, *((own.name, peer.name) if direction == "egress" else (peer.name, own.name)), port)
        for direction, own, peer, port in product(("egress", "ingress"), ours, everybody, tried(manifests))
        if passes(policies, direction, own, peer, port)
    }


def passes(policies: list[Manifest], direction: str, subject: Party, peer: Party, port: str) -> bool:
    """Whether the subject's policies of one direction let this peer and port pass; without any, all pass."""
    own = [policy["spec"] for policy in policies if applies(policy["spec"], direction, subject)]
    rules = [rule for spec in own for rule in spec.get(direction) or []]
    return not own or any(allows(rule, direction, peer, port) for rule in rules)


def applies(spec: Manifest, direction: str, subject: Party) -> bool:
    selected = subject.namespace == HERE and matches(spec["podSelector"], subject.labels)
    return selected and direction.capitalize() in spec["policyTypes"]


def allows(rule: Manifest, direction: str, peer: Party, port: str) -> bool:
    peers = rule.get("from" if direction == "ingress" else "to")
    ports = rule.get("ports")
    return (not peers or any(is_peer(one, peer) for one in peers)) and (
        not ports or any(is_port(one, port) for one in ports)
    )


def is_port(allowed: Manifest, port: str) -> bool:
    number, protocol = port.split("/")
    same = allowed.get("protocol", "TCP") == protocol
    return same and allowed["port"] <= int(number) <= allowed.get("endPort", allowed["port"])


def is_peer(selector: Manifest, peer: Party) -> bool:
    if "ipBlock" in selector:
        return not peer.namespace  # any block may be where it is
    if not peer.namespace:
        return False
    namespace = {"kubernetes.io/metadata.name": peer.namespace}
    near = (
        matches(selector["namespaceSelector"], namespace) if "namespaceSelector" in selector else peer.namespace == HERE
    )
    return near and matches(selector.get("podSelector", {}), peer.labels)


def differences(manifests: Manifests) -> Iterator[str]:
    found, wanted = opened(manifests), expected(manifests)
    yield from (f"open without need: {path}" for path in sorted(found - wanted))
    yield from (f"closed: {path}" for path in sorted(wanted - found))


def test_exactly_the_needed_paths_are_open(manifests: Manifests) -> None:
    assert list(differences(manifests)) == []


DENY, GATEWAY, EDGE = (f"NetworkPolicy/carillon-{name}" for name in ("default-deny", "gateway", "edge"))


@pytest.mark.parametrize(
    ("target", "path", "value"),
    [
        (GATEWAY, "spec/ingress/0/ports/1/port", 9001),
        (GATEWAY, "spec/ingress/0/from/0/podSelector/matchLabels", {}),
        (GATEWAY, "spec/ingress/0/from/0/namespaceSelector", {}),
        (GATEWAY, "spec/ingress/1/from", ...),
        (GATEWAY, "spec/ingress/-", {"ports": [{"port": 8000}]}),
        (GATEWAY, "spec/egress/1", ...),
        (GATEWAY, "spec/egress/-", {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
        (EDGE, "spec/egress/1/ports/-", {"port": 22}),
        (EDGE, "spec/ingress/0/ports", ...),
        (EDGE, "spec/egress/0", ...),
        (EDGE, "spec/egress/0/ports/0/protocol", "TCP"),
    ],
)
def test_a_path_too_many_or_too_few_is_seen(production: Manifests, target: str, path: str, value: object) -> None:
    assert list(differences(production.changed(target, path, value)))


@pytest.mark.parametrize("target", [GATEWAY, EDGE])
def test_a_policy_that_is_missing_is_seen(production: Manifests, target: str) -> None:
    assert list(differences(production.without(target)))


def test_what_no_policy_names_is_closed(production: Manifests) -> None:
    """A pod of this release that somebody adds: by the default alone."""
    stray = Party("stray", {"app.kubernetes.io/name": "carillon", "app.kubernetes.io/instance": "carillon"}, HERE)
    policies = production.of("NetworkPolicy")
    for direction, other in product(("ingress", "egress"), OTHERS):
        assert not passes(policies, direction, stray, other, "443/TCP")
        assert passes(production.without(DENY).of("NetworkPolicy"), direction, stray, other, "443/TCP")


def test_pods_of_others_in_the_namespace_are_left_alone(production: Manifests) -> None:
    backend, outside = OTHERS[0], OTHERS[-1]
    assert passes(production.of("NetworkPolicy"), "egress", backend, outside, "443/TCP")
