"""What the chart's values do: what follows from them in other objects."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from app.settings import Settings
from app.telemetry.metrics import CATALOGUE
from tests.support.chart import environment, pod, settings, with_values
from tests.support.manifests import CHART, identity, rendered

#: Of the gateway itself, where the values say nothing.
DEFAULT_DRAIN = Settings.model_fields["drain_delay"].default + Settings.model_fields["drain_timeout"].default


@pytest.mark.parametrize(
    ("values", "name", "grace"),
    [
        ([], "gateway", 50),
        (["gateway.settings.drain_timeout:=120.5"], "gateway", 141),
        (["gateway.settings.drain_delay=0", "gateway.settings.drain_timeout=10"], "gateway", 25),
        (["gateway.settings.drain_delay=null", "gateway.settings.drain_timeout=null"], "gateway", DEFAULT_DRAIN + 15),
        (["gateway.terminationGracePeriodSeconds=41"], "gateway", 41),
        ([], "edge", 50),
        (["edge.drain.delay=10", "edge.drain.timeout=60"], "edge", 85),
        (["edge.terminationGracePeriodSeconds=300"], "edge", 300),
    ],
)
def test_the_grace_is_as_long_as_the_drain_needs(values: list[str], name: str, grace: int) -> None:
    found = with_values(*values)
    spec = found.one("Deployment", f"carillon-{name}")["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == grace
    assert spec["progressDeadlineSeconds"] >= 600 + grace
    if name == "gateway":
        assert environment(found, "gateway")["CARILLON_TERMINATION_GRACE"] == str(grace)


def test_settings_are_written_as_the_gateway_reads_them() -> None:
    found = settings(
        with_values(
            "gateway.settings.history_meta_ttl=86400000",
            "gateway.settings.rebalance_tolerance:=0.1",
            "gateway.settings.broker_trust_restart=true",
            'gateway.settings.allowed_origins:=["https://a.example.com", "https://b.example.com"]',
        )
    )
    assert found["CARILLON_HISTORY_META_TTL"] == "86400000"
    assert found["CARILLON_REBALANCE_TOLERANCE"] == "0.1"
    assert found["CARILLON_BROKER_TRUST_RESTART"] == "true"
    assert found["CARILLON_ALLOWED_ORIGINS"] == "https://a.example.com,https://b.example.com"


def test_namespaces_become_the_file() -> None:
    chat = '{"history_size": 100000000, "history_ttl": 0.5, "echo": true, "publish": "nobody"}'
    found = with_values(f"gateway.namespaces.chat:={chat}").one("ConfigMap", "carillon-gateway-file")
    assert tomllib.loads(found["data"]["carillon.toml"]) == {"namespaces": {"chat": yaml.safe_load(chat)}}
    assert "history_size = 100000000\n" in found["data"]["carillon.toml"], "a whole number stays one"


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ([], {"secretKeyRef": {"name": "carillon", "key": "redis-url"}}),
        (
            ["redis.existingSecret=redis", "secrets.keys.redisUrl=url"],
            {"secretKeyRef": {"name": "redis", "key": "url"}},
        ),
        (["redis.url=rediss://redis.example.com"], "rediss://redis.example.com"),
        (["valkey.enabled=true"], "redis://carillon-valkey:6379"),
    ],
)
def test_redis_is_where_the_values_say(values: list[str], url: Any) -> None:
    assert environment(with_values(*values), "gateway")["CARILLON_REDIS_URL"] == url


@pytest.mark.parametrize("kind", ["configMap", "secret"])
def test_the_authority_of_redis_is_mounted(kind: str) -> None:
    found = pod(with_values(f"redis.ca.{kind}=ca", "redis.ca.key=root.pem"), "gateway")["spec"]
    (volume,) = (volume for volume in found["volumes"] if volume["name"] == "config")
    assert volume["projected"]["sources"][-1] == {
        kind: {"name": "ca", "items": [{"key": "root.pem", "path": "redis-ca/ca.crt"}]}
    }


def test_without_a_secret_for_tokens_none_is_asked_for() -> None:
    found = with_values("secrets.keys.tokenHmacSecret=", "gateway.settings.token_jwks_url=https://login.example.com")
    assert "CARILLON_TOKEN_HMAC_SECRET_FILE" not in settings(found)
    assert "token-hmac-secret" not in yaml.safe_dump(pod(found, "gateway"))
    assert found.of("Pod") == [], "helm test could sign no token"


@pytest.mark.parametrize("how", ["autoscaling.enabled=true", "keda.enabled=true"])
def test_what_scales_owns_the_number_of_pods(how: str) -> None:
    found = with_values(how, "keda.serverAddress=http://prometheus:9090")
    assert "replicas" not in found.one("Deployment", "carillon-gateway")["spec"]
    assert found.one("Deployment", "carillon-edge")["spec"]["replicas"] == 2
    assert settings(found)["CARILLON_CONNECTION_MAX_AGE"] == "14400"
    assert settings(with_values(how, "keda.serverAddress=http://p", "gateway.settings.connection_max_age=600"))[
        "CARILLON_CONNECTION_MAX_AGE"
    ] == "600"  # fmt: skip


def test_nothing_scales_by_itself() -> None:
    found = with_values()
    assert found.of("HorizontalPodAutoscaler", "ScaledObject") == []
    assert found.one("Deployment", "carillon-gateway")["spec"]["replicas"] == 2
    assert "CARILLON_CONNECTION_MAX_AGE" not in settings(found)


def test_the_adapters_rules_give_what_the_autoscaler_asks_for() -> None:
    rules = yaml.safe_load((CHART / "files" / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]["custom"]
    given = {re.match(r"\w+", rule["seriesQuery"])[0] for rule in rules}  # type: ignore[index]
    (scaler,) = with_values("autoscaling.enabled=true").of("HorizontalPodAutoscaler")
    assert given == {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert given <= {metric.name for metric in CATALOGUE}


def test_alerts_lead_to_where_the_base_url_says() -> None:
    found = with_values("monitoring.rules.enabled=true", "monitoring.baseUrl=https://docs.example.com/c/")
    rules = [rule for group in found.of("PrometheusRule")[0]["spec"]["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert rule["annotations"]["runbook_url"] == f"https://docs.example.com/c/runbooks/{rule['alert']}.md"
        assert rule["annotations"]["dashboard_url"].startswith("https://docs.example.com/c/d/carillon-")


def test_ports_of_redis_may_be_a_range() -> None:
    found = with_values('networkPolicy.redis.ports:=[6379, "11000-13047"]').one("NetworkPolicy", "carillon-gateway")
    assert found["spec"]["egress"][1]["ports"] == [
        {"port": 6379, "protocol": "TCP"},
        {"port": 11000, "endPort": 13047, "protocol": "TCP"},
    ]


def test_dns_may_have_other_ports() -> None:
    """Policies see the ports of the servers' pods: OpenShift's listen on 5353, and without names nothing works."""
    found = with_values("networkPolicy.dnsPorts:=[53, 5353]")
    for name in ("gateway", "edge", "test"):
        (rule,) = (
            rule
            for rule in found.one("NetworkPolicy", f"carillon-{name}")["spec"]["egress"]
            if {"port": 5353, "protocol": "UDP"} in rule["ports"]
        )
        assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {
            *((53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP"))
        }


def test_a_route_may_say_nothing_of_timeouts() -> None:
    """GKE's Gateway takes no route that does (`UnsupportedValue`)."""
    route = ("gatewayApi.enabled=true", 'gatewayApi.parentRefs:=[{"name": "public"}]')
    said = {"request": "0s", "backendRequest": "0s"}
    for values, wanted in ((route, said), ((*route, "gatewayApi.timeouts=false"), None)):
        (rule,) = with_values(*values).one("HTTPRoute", "carillon")["spec"]["rules"]
        assert rule.get("timeouts") == wanted
        assert rule["backendRefs"]


@pytest.mark.parametrize(("more", "front"), [((), "carillon-edge"), (("edge.enabled=false",), "carillon-gateway")])
def test_the_port_that_a_route_leads_to_may_say_that_it_speaks_websocket(more: tuple[str, ...], front: str) -> None:
    """Some Gateways pass no upgrade on to others."""
    route = ("gatewayApi.enabled=true", 'gatewayApi.parentRefs:=[{"name": "public"}]', *more)

    def said(*values: str) -> dict[str, str]:
        services = with_values(*route, *values).of("Service")
        ports = [(each["metadata"]["name"], port) for each in services for port in each["spec"]["ports"]]
        return {f"{name} {port['name']}": port["appProtocol"] for name, port in ports if "appProtocol" in port}

    assert said() == {}
    name = "http" if front == "carillon-edge" else "public"
    assert said("gatewayApi.appProtocol=kubernetes.io/ws") == {f"{front} {name}": "kubernetes.io/ws"}


@pytest.mark.parametrize(
    ("values", "pods"),
    [
        ([], 2),
        (["gateway.replicas=1"], 1),
        (["edge.balance=user"], 2),
        (["edge.balance=address"], 1),
        (["edge.balance=address", "edge.enabled=false"], 2),
    ],
    ids=str,
)
def test_helm_test_looks_for_as_many_pods_as_it_can_meet(values: list[str], pods: int) -> None:
    """It has one address, which leads to one pod where the edge goes by that."""
    (smoke,) = (pod for pod in with_values(*values).pods() if pod.component == "test")
    assert f"--pods={pods}" in smoke.containers[0]["args"]


def test_the_edge_includes_what_the_values_have() -> None:
    found = rendered("chart production")
    (name,) = found.one("ConfigMap", "carillon-edge-include")["data"]
    assert name == "server-headers.conf"
    (mounted,) = (m for m in pod(found, "edge")["spec"]["containers"][0]["volumeMounts"] if m["name"] == "include")
    assert mounted["mountPath"] == found.one("ConfigMap", "carillon-edge")["data"]["CARILLON_EDGE_INCLUDE"]


def test_without_the_edge_nothing_speaks_of_it() -> None:
    found = rendered("chart no-nginx")
    assert [o for o in found.objects if "edge" in identity(o)] == []
    (ingress,) = found.of("Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "carillon-gateway", "port": {"name": "public"}}
    (policy,) = (p for p in found.of("NetworkPolicy") if p["metadata"]["name"] == "carillon-gateway")
    assert "edge" not in yaml.safe_dump(policy)


def test_without_the_edge_a_load_balancer_may_lead_to_the_gateways_but_not_to_their_internal_port() -> None:
    found = with_values("edge.enabled=false", "gateway.publicService.enabled=true", "gateway.publicService.port=443")
    service = found.one("Service", "carillon-gateway-public")["spec"]
    assert service["type"] == "LoadBalancer"
    assert service["ports"] == [{"name": "public", "port": 443, "targetPort": "public"}]
    assert service["selector"] == found.one("Service", "carillon-gateway")["spec"]["selector"]


def test_an_empty_list_of_peers_opens_nothing_to_all() -> None:
    """`from: []` of a NetworkPolicy would be everybody."""
    found = with_values("networkPolicy.prometheus:=[]", "networkPolicy.backends:=[]", "edge.exporter.enabled=true")
    for policy in found.of("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            public = {port["port"] for port in rule["ports"]} <= {8080, 8443}
            assert rule.get("from") or public, identity(policy)


@pytest.mark.parametrize("name", ["gateway", "edge"])
def test_pods_are_what_their_values_add(name: str) -> None:
    found = pod(
        with_values(
            f'{name}.extraEnv:=[{{"name": "TZ", "value": "UTC"}}]',
            f"{name}.podAnnotations.note=x",
            f"{name}.podLabels.team=x",
            f"{name}.nodeSelector.disk=fast",
            f'{name}.tolerations:=[{{"key": "k", "operator": "Exists"}}]',
            f'{name}.affinity:={{"nodeAffinity": {{}}}}',
            f'{name}.topologySpreadConstraints:=[{{"maxSkew": 2}}]',
            f"{name}.priorityClassName=high",
            'imagePullSecrets:=[{"name": "registry"}]',
            "commonLabels.owner=y",
        ),
        name,
    )
    spec = found["spec"]
    assert {"name": "TZ", "value": "UTC"} in spec["containers"][0]["env"]
    assert found["metadata"]["annotations"]["note"] == "x"
    assert found["metadata"]["labels"].items() >= {"team": "x", "owner": "y"}.items()
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == [{"key": "k", "operator": "Exists"}]
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert spec["topologySpreadConstraints"] == [{"maxSkew": 2}]
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_a_digest_beats_the_tag() -> None:
    digest = f"sha256:{'0' * 64}"
    found = with_values("image.tag=9.9", f"edge.image.digest={digest}", "edge.image.tag=9.9")
    assert pod(found, "gateway")["spec"]["containers"][0]["image"] == "registry.example.com/carillon-gateway:9.9"
    assert pod(found, "edge")["spec"]["containers"][0]["image"] == f"registry.example.com/carillon-edge@{digest}"
