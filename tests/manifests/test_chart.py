"""The chart as a whole: what it is made from, what it refuses and in which words, and what it tells."""

import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.support.chart import MINIMAL, environment, helm, options, refusal, with_values
from tests.support.manifests import CHART, ROOT, rendered
from tests.support.modules import module_of

SETS = sorted(CHART.glob("ci/*.yaml"))


# -- What is made from something else


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return module_of(ROOT / "helm" / "generate.py", "generate_chart")


def test_schema_and_readme_say_what_values_and_settings_say(generate: ModuleType) -> None:
    assert generate.stale() == [], "run `make docs`"


def test_each_value_is_explained(generate: ModuleType) -> None:
    plain = [value.path for value in generate.values() if not isinstance(value.default, dict) and not value.comment]
    assert plain == []


def test_each_constraint_is_one_of_a_value(generate: ModuleType) -> None:
    assert generate.CONSTRAINTS.keys() - {value.path for value in generate.values()} == set()


def test_the_application_that_it_runs_is_this_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"] == project["version"]


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem)
def test_helm_has_nothing_against_it(values: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_a_packaged_chart_is_the_same(tmp_path: Path) -> None:
    """Alerts and dashboards are links in the repository, and files in the package."""
    assert helm("package", str(CHART), "--destination", str(tmp_path)).returncode == 0
    (package,) = tmp_path.glob("*.tgz")
    values = str(CHART / "ci" / "production.yaml")
    done = helm("template", "carillon", str(package), "--namespace", "carillon", "--values", values)
    assert list(yaml.safe_load_all(done.stdout)) == list(rendered("chart production").objects)


# -- What is refused

#: All of them are given at once. What is said names the place and has this word; the rest is Helm's own.
WRONG = {
    "image.repository=registry.example.com/gateway:1.0": ("image.repository", "match pattern"),
    "image.digest=sha256:short": ("image.digest", "match pattern"),
    "image.pullPolicy=Sometimes": ("image.pullPolicy", "IfNotPresent"),
    "gateway.replicas=two": ("gateway.replicas", "integer"),
    "gateway.replica=2": ("gateway", "replica"),
    "gateway.workers=0": ("gateway.workers", "1"),
    "gateway.maxSurge=all": ("gateway.maxSurge", "[0-9]+%"),
    "gateway.settings.drain_timeout=long": ("gateway.settings.drain_timeout", "number"),
    "gateway.settings.redis_url=x": ("gateway.settings", "redis_url"),
    "gateway.settings.log_level=loud": ("gateway.settings.log_level", "debug"),
    "gateway.namespaces.chat.histroy=1": ("gateway.namespaces.chat", "histroy"),
    "gateway.namespaces.prices.history_size=-1": ("gateway.namespaces.prices.history_size", "0"),
    "gateway.namespaces.1st.echo=true": ("gateway.namespaces", "1st"),
    'gateway.sysctls:=[{"name": "net.core.somaxconn", "value": "1"}]': ("gateway.sysctls.0.name", "tcp_rmem"),
    "gateway.pdb.maxUnavailable=0": ("gateway.pdb.maxUnavailable", "1"),
    "gateway.resources.limits.memory:=[]": ("gateway.resources.limits.memory", "array"),
    "edge.balance=fair": ("edge.balance", "cookie"),
    'edge.trusted:=["everybody"]': ("edge.trusted.0", "match pattern"),
    "redis.url=redis://:password@redis": ("redis.url", "match pattern"),
    "networkPolicy.redis.ports:=[]": ("networkPolicy.redis.ports", "1"),
    "keda.serverAddress=prometheus": ("keda.serverAddress", "match pattern"),
    "autoscaling.behaviour:={}": ("autoscaling", "behaviour"),
}


@pytest.mark.parametrize("value", WRONG)
def test_the_schema_names_a_wrong_value(value: str) -> None:
    place, word = WRONG[value]
    said = [line.replace("/", ".") for line in refusal(*WRONG).splitlines() if line.lstrip().startswith("- ")]
    assert [line for line in said if re.search(rf"- (at '\.)?{re.escape(place)}'?:", line) and word in line], said


#: Values that fit the schema and not each other, in groups that can be given at once, and what is said.
MISMATCHES: list[dict[str, str]] = [
    {
        "image.repository=": "image.repository: needed: the name under which you pushed the gateway's image",
        "edge.image.repository=": "edge.image.repository: needed: ",
        "secrets.existingSecret=": "secrets.existingSecret: needed: the name of a Secret with the keys "
        "token-hmac-secret, api-keys, redis-url;",
        "gateway.terminationGracePeriodSeconds=40": "gateway.terminationGracePeriodSeconds: 40 cuts the drain off: "
        "drain_delay + drain_timeout + 6 are 41; 0 takes what is needed",
        "edge.terminationGracePeriodSeconds=39": "edge.terminationGracePeriodSeconds: 39 cuts the drain off: ",
        "gateway.maxSurge=0": "gateway.maxSurge: with 0, and gateway.maxUnavailable 0, no pod could ever be replaced",
        "edge.maxSurge=0%": "edge.maxSurge: with 0, and edge.maxUnavailable 0, no pod could ever be replaced",
        "keda.enabled=true": "keda.serverAddress: needed with keda.enabled",
        "autoscaling.enabled=true": "keda.enabled: KEDA makes a HorizontalPodAutoscaler itself, and two would fight",
        "autoscaling.minReplicas=30": "autoscaling.minReplicas: 30 is above autoscaling.maxReplicas, 20",
        "gateway.workers=2,gateway.settings.max_connections=2499": "autoscaling.connectionsPerPod: 5000 is never "
        "reached: a pod takes 4998 ",
        "edge.tls.enabled=true": "edge.tls.existingSecret: needed with edge.tls.enabled",
        "ingress.enabled=true": "ingress.hosts: needed with ingress.enabled",
        "gatewayApi.enabled=true": "gatewayApi.parentRefs: needed with gatewayApi.enabled",
        "gateway.publicService.enabled=true": "gateway.publicService: with the edge, clients come through its Service",
        "monitoring.rules.enabled=true": "monitoring.baseUrl: needed with monitoring.rules.enabled",
        "redis.ca.secret=s,redis.ca.configMap=c": "redis.ca: the certificate is in configMap or in secret: not both",
        "commonLabels.app\\.kubernetes\\.io/component=x": "commonLabels: app.kubernetes.io/component is the chart's",
        "gateway.podLabels.app\\.kubernetes\\.io/name=x": "gateway.podLabels: app.kubernetes.io/name is the chart's",
    },
    {
        "edge.enabled=false,edge.api=true": "edge.enabled: without the edge nothing does what ",
        "edge.proxyProtocol=true": "edge.trusted: needed with edge.proxyProtocol",
        "valkey.enabled=true,redis.url=redis://r": "valkey.enabled: the trial's own Valkey, or yours by redis.url",
    },
    {
        "redis.url=memory://": "redis.url: memory:// reaches one process only",
        "redis.existingSecret=s": "redis.url: it is in the Secret redis.existingSecret, or here: not both",
        "edge.proxyProtocol=true,edge.trusted[0]=10.0.0.0/8,ingress.enabled=true,ingress.hosts[0]=h": "edge.proxy"
        "Protocol: an Ingress or Gateway speaks HTTP to the edge, without a PROXY header",
    },
]


@pytest.mark.parametrize(
    ("together", "value"),
    [(group, value) for group in MISMATCHES for value in group],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_values_that_do_not_go_together_are_one_line_each(together: dict[str, str], value: str) -> None:
    assert len([line for line in refusal(*together).splitlines() if line.startswith(together[value])]) == 1


def test_nothing_else_is_said() -> None:
    for group in MISMATCHES:
        lines = [line for line in refusal(*group).splitlines() if re.match(r"[a-z][\w.]+: ", line)]
        assert len(lines) == len(group), lines


def test_memory_is_enough_for_one_process() -> None:
    found = with_values("redis.url=memory://", "gateway.replicas=1")
    assert environment(found, "gateway")["CARILLON_REDIS_URL"] == "memory://"


# -- What it tells


def notes(*values: str, base: Path = MINIMAL) -> str:
    if helm("version", "--short").stdout.startswith("v3"):
        pytest.skip("Helm 3 shows no notes without a cluster")
    done = helm("install", "carillon", str(CHART), "-n", "live", "--dry-run=client", *options(*values, base=base))
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def test_the_notes_give_the_next_three_commands() -> None:
    said = notes()
    assert "kubectl -n live create secret generic carillon \\\n     --from-literal=token-hmac-secret=" in said
    assert "--from-literal=redis-url='redis://:PASSWORD@HOST:6379'" in said
    assert "helm test carillon -n live\n" in said
    assert "kubectl -n live port-forward service/carillon-edge 8080:80 " in said
    assert "rollout restart deployment/carillon-gateway" in said, "what a changed Secret needs"
    assert "No pod may reach that yet" in said
    assert "WARNING" not in said


def test_the_notes_follow_the_values() -> None:
    said = notes("valkey.enabled=true", "gateway.settings.dev=true", "secrets.keys.apiKeys=")
    assert "redis-url" not in said
    assert "FOR TRIALS ONLY" in said
    assert "whoever reaches the edge gets tokens" in said
    assert "helm test` needs both keys" in said


def test_the_notes_follow_the_routes() -> None:
    said = notes(
        "monitoring.serviceMonitor.enabled=true", "networkPolicy.prometheus=null", base=CHART / "ci" / "no-nginx.yaml"
    )
    assert "wss://ws.example.com/ws" in said
    assert "lets nobody read the metrics" in said
    assert "X-Forwarded-For" not in said


def test_the_notes_warn_of_a_load_balancer_that_does_not_say_who_the_client_is() -> None:
    """Its packets come from a private address, which is trusted: a client's own header would be believed (A3)."""
    said = notes("edge.enabled=false", "gateway.publicService.enabled=true")
    assert "whatever X-Forwarded-For a client made up" in said
