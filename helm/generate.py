"""Writes the chart's values.schema.json and the table in its README.md: `python helm/generate.py`; `--check` compares.

Both are made from values.yaml and its comments; what the gateway may be told, from `app/settings.py`."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).parent / "carillon"
sys.path.insert(0, str(CHART.parents[1]))

from app.settings import NAMESPACE_NAME, Namespace, Settings  # noqa: E402

#: Settings that the chart makes from other values, or that have to be the same in all of its objects.
OWN_SETTINGS = frozenset(
    ("redis_url", "token_hmac_secret", "api_keys", "public_port", "internal_port", "pod_name", "termination_grace")
) | {"namespaces"}

PERCENT_OR_NUMBER = {"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+%$"}
ONE_AT_LEAST = {"type": ["integer", "string"], "minimum": 1, "pattern": "^[1-9][0-9]*%$"}
PEERS = {"items": {"type": "object"}}
PEER = {"type": "object", "properties": {"name": {"type": "string", "minLength": 1}}, "required": ["name"]}
REPOSITORY = {"pattern": r"^([^@\s]+/)?[^@:/\s]+$|^$"}
DIGEST = {"pattern": "^(sha256:[0-9a-f]{64})?$"}
KEY = {"pattern": "^[A-Za-z0-9._-]*$"}
SECONDS = {"type": "number", "minimum": 0}
WHOLE = {"type": "integer", "minimum": 0}
PLENTY = {"type": "integer", "minimum": 1}
PORT = {"type": "integer", "minimum": 1, "maximum": 65_535}
QUANTITY = {"type": ["string", "integer"], "pattern": r"^[0-9.]+([EPTGMk]i?|m)?$"}
AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
RESOURCES = {"additionalProperties": False, "properties": {"requests": AMOUNTS, "limits": AMOUNTS}}
#: Of the kubelet's list of safe sysctls, what concerns networking of the pod itself.
SAFE_SYSCTLS = [
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
]
SYSCTLS = {
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "value"],
        "properties": {"name": {"enum": SAFE_SYSCTLS}, "value": {"type": "string"}},
    }
}
TEXTS = {"additionalProperties": {"type": "string"}}
HOSTS = {"items": {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}}
NETWORKS = {"items": {"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]+)?$"}}


def _pods(component: str) -> dict[str, dict[str, Any]]:
    """What the values of gateway and edge have in common."""
    return {
        f"{component}.replicas": WHOLE,
        f"{component}.terminationGracePeriodSeconds": WHOLE,
        f"{component}.minReadySeconds": WHOLE,
        f"{component}.maxSurge": PERCENT_OR_NUMBER,
        f"{component}.maxUnavailable": PERCENT_OR_NUMBER,
        f"{component}.resources": RESOURCES,
        f"{component}.tmpSize": QUANTITY,
        f"{component}.sysctls": SYSCTLS,
        f"{component}.extraEnv": {"items": PEER},
        f"{component}.podAnnotations": TEXTS,
        f"{component}.podLabels": TEXTS,
        f"{component}.nodeSelector": TEXTS,
        f"{component}.tolerations": PEERS,
        f"{component}.topologySpreadConstraints": PEERS,
        f"{component}.pdb.maxUnavailable": ONE_AT_LEAST,
    }


def _service(path: str) -> dict[str, dict[str, Any]]:
    """What the values of Services for clients have in common."""
    return {
        f"{path}.annotations": TEXTS,
        f"{path}.loadBalancerSourceRanges": NETWORKS,
        f"{path}.externalTrafficPolicy": {"enum": ["", "Cluster", "Local"]},
    }


#: What the type of a default does not say.
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "image.repository": REPOSITORY,
    "image.digest": DIGEST,
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "imagePullSecrets": {"items": PEER},
    "fullnameOverride": {"pattern": "^([a-z]([a-z0-9-]{0,43}[a-z0-9])?)?$"},
    "clusterDomain": {"pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"},
    "commonLabels": TEXTS,
    "secrets.keys.tokenHmacSecret": KEY,
    "secrets.keys.apiKeys": KEY,
    "secrets.keys.redisUrl": {**KEY, "minLength": 1},
    "redis.url": {"pattern": r"^((redis|valkey)s?(\+(sentinel|cluster))?|memory)://[^@\s]*$|^$"},
    **_pods("gateway"),
    "gateway.workers": {**PLENTY, "maximum": 64},
    "gateway.shmSize": QUANTITY,
    "gateway.extraVolumes": {"items": PEER},
    "gateway.extraVolumeMounts": {"items": PEER},
    **_service("gateway.publicService"),
    "gateway.publicService.type": {"enum": ["NodePort", "LoadBalancer"]},
    "gateway.publicService.port": PORT,
    **_pods("edge"),
    "edge.image.repository": REPOSITORY,
    "edge.image.digest": DIGEST,
    "edge.balance": {"enum": ["cookie", "user", "address"]},
    "edge.trusted": NETWORKS,
    "edge.limits.addressConnections": WHOLE,
    "edge.limits.addressRate": WHOLE,
    "edge.limits.addressBurst": WHOLE,
    "edge.drain.delay": WHOLE,
    "edge.drain.timeout": {**PLENTY, "maximum": 3600},
    "edge.include": {
        "patternProperties": {"^(http|server)[a-z0-9.-]*[.]conf$": {"type": "string"}},
        "additionalProperties": False,
    },
    "edge.workers": WHOLE,
    "edge.connections": {"type": "integer", "minimum": 64},
    **_service("edge.service"),
    "edge.service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "edge.exporter.resources": RESOURCES,
    "edge.exporter.image.repository": {**REPOSITORY, "minLength": 1},
    "edge.exporter.image.digest": DIGEST,
    "autoscaling.minReplicas": PLENTY,
    "autoscaling.maxReplicas": PLENTY,
    "autoscaling.connectionsPerPod": PLENTY,
    "autoscaling.loopLagSeconds": {"type": "number", "exclusiveMinimum": 0},
    "autoscaling.behavior": {
        "additionalProperties": False,
        "properties": {"scaleUp": {"type": "object"}, "scaleDown": {"type": "object"}},
    },
    "keda.serverAddress": {"pattern": r"^(https?://\S+)?$"},
    "keda.pollingInterval": PLENTY,
    "deletionCost.resources": RESOURCES,
    "deletionCost.nodeSelector": TEXTS,
    "deletionCost.tolerations": PEERS,
    "ingress.annotations": TEXTS,
    "ingress.hosts": HOSTS,
    "ingress.tls": PEERS,
    "gatewayApi.parentRefs": {"items": PEER},
    "gatewayApi.hostnames": HOSTS,
    "gatewayApi.annotations": TEXTS,
    "gatewayApi.appProtocol": {"enum": ["", "http", "kubernetes.io/ws"]},
    "networkPolicy.clients": PEERS,
    "networkPolicy.prometheus": PEERS,
    "networkPolicy.backends": PEERS,
    "networkPolicy.dns": PEERS,
    "networkPolicy.dnsPorts": {"items": PORT, "minItems": 1},
    "networkPolicy.redis.to": PEERS,
    "networkPolicy.redis.ports": {
        "items": {**PORT, "type": ["integer", "string"], "pattern": "^[0-9]+-[0-9]+$"},
        "minItems": 1,
    },
    "networkPolicy.apiServerPorts": {"items": PORT, "minItems": 1},
    "networkPolicy.gatewayEgress": PEERS,
    "monitoring.baseUrl": {"pattern": r"^(https?://\S+)?$"},
    "monitoring.serviceMonitor.interval": {"pattern": "^[0-9]+(ms|s|m|h)$"},
    "monitoring.serviceMonitor.labels": TEXTS,
    "monitoring.rules.labels": TEXTS,
    "monitoring.dashboards.labels": TEXTS,
    "valkey.image.repository": {**REPOSITORY, "minLength": 1},
    "valkey.image.digest": DIGEST,
    "valkey.resources": RESOURCES,
    "valkey.maxMemory": {"pattern": "^[1-9][0-9]*(kb|mb|gb)$"},
    "test.room": {"pattern": r"^[^#{}\s][^{}\s]*$"},
}


# -- values.yaml


class Value(NamedTuple):
    """One value, or one group of them where it has no comment of its own."""

    path: str
    default: Any
    comment: str


def values() -> Iterator[Value]:
    """All values and groups, each group before what is in it. What has a comment `# --` is not looked into."""
    text = (CHART / "values.yaml").read_text("utf-8")
    yield from _walk(yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text), text.splitlines(), "")


def _walk(node: Any, defaults: Any, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, child in node.value:
        path = f"{prefix}{key.value}"
        value = Value(path, defaults[key.value], _comment(lines, key.start_mark.line))
        yield value
        if isinstance(value.default, dict) and not value.comment:
            yield from _walk(child, value.default, lines, f"{path}.")


def _comment(lines: list[str], line: int) -> str:
    """The comment above a line, if it begins with `# --`."""
    words: list[str] = []
    while line > 0 and (comment := re.match(r"\s*# ?(.*)", lines[line - 1])):
        words.insert(0, comment[1])
        line -= 1
    return " ".join(words).removeprefix("-- ") if words and words[0].startswith("-- ") else ""


# -- values.schema.json


def schema() -> dict[str, Any]:
    whole: dict[str, Any] = _group()
    # A chart that has this one as a part puts `global` into its values.
    whole["properties"]["global"] = {"type": "object"}
    for path, default, comment in values():
        *groups, name = path.split(".")
        place = whole
        for group in groups:
            place = place["properties"][group]
        place["properties"][name] = _schema(path, default, comment)
    gateway = whole["properties"]["gateway"]["properties"]
    gateway["settings"] |= _settings()
    gateway["namespaces"] |= {
        "patternProperties": {f"^{NAMESPACE_NAME.pattern}$": _options(Namespace.model_json_schema())},
        "additionalProperties": False,
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", **whole}


def _group() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _schema(path: str, default: Any, comment: str) -> dict[str, Any]:
    if isinstance(default, dict) and not comment:
        return _group()
    types = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return {"description": comment, "type": types[type(default)], **CONSTRAINTS.get(path, {})}


def _settings() -> dict[str, Any]:
    """The gateway's settings by name, but for the chart's own; lists may be lists or text with commas."""
    found = _options(Settings.model_json_schema())
    for name in OWN_SETTINGS:
        del found["properties"][name]
    for option in found["properties"].values():
        if option["type"] == "array":
            option["type"] = ["array", "string"]
    return found


def _options(model: dict[str, Any]) -> dict[str, Any]:
    """What pydantic says of a model's fields, without what is not for a schema of values."""
    found = _group()
    for name, field in model["properties"].items():
        kind = model.get("$defs", {}).get(field.get("$ref", "").rpartition("/")[2], {})
        kept = {**kind, **field}
        for noise in ("$ref", "title", "default", "unit", "zero", "properties"):
            kept.pop(noise, None)
        found["properties"][name] = kept
    return found


# -- README.md


def readme() -> str:
    rows = [
        f"| `{path}` | {_cell(default)} | {comment.replace('|', chr(92) + '|')} |"
        for path, default, comment in values()
        if comment
    ]
    table = "\n".join(["| value | default | what it does |", "| --- | --- | --- |", *rows])
    text = (CHART / "README.md").read_text("utf-8")
    head, begin, rest = text.partition("<!-- values:begin -->\n")
    _, end, tail = rest.partition("<!-- values:end -->")
    if not end:
        raise ValueError("README.md has no markers for its table of values")
    return f"{head}{begin}{table}\n{end}{tail}"


def _cell(default: Any) -> str:
    if default in ("", [], {}):
        return ""
    text = default if isinstance(default, str) else json.dumps(default)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


FILES = {"values.schema.json": lambda: json.dumps(schema(), indent=1) + "\n", "README.md": readme}


def stale() -> list[str]:
    """Files that do not say what values.yaml and the settings say."""
    return [
        name
        for name, make in FILES.items()
        if not (CHART / name).exists() or (CHART / name).read_text("utf-8") != make()
    ]


def main() -> int:
    if "--check" in sys.argv[1:]:
        for name in stale():
            print(f"helm/carillon/{name} is not up to date: make docs", file=sys.stderr)
        return 1 if stale() else 0
    for name, make in FILES.items():
        (CHART / name).write_text(make(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
