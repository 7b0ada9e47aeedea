"""What `monitoring/` configures, run for real beside a stack: Prometheus with our rules, Alertmanager, an exporter.

Everything is made SPEED times as fast: what a rule waits for, and the time that it looks back at."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from local import probes
from local.child import Child, Service, stop
from local.ports import HOST, free_ports
from tests.support import parts
from tests.support.http_server import SilentHandler, serving_in_thread
from tests.support.stack import Stack
from tests.support.waiting import wait_until

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = MONITORING / "rules" / "carillon.yaml"
SPEED = 30
SCRAPE = "1s"
NAMESPACE = "live"

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def faster(rules: str) -> dict[str, Any]:
    """The rules with every duration in them divided by SPEED; what they compare with stays."""
    found: dict[str, Any] = yaml.safe_load(rules)
    for rule in (rule for group in found["groups"] for rule in group["rules"]):
        rule["expr"] = re.sub(r"(\[|offset )(\d+)([smh])", lambda m: m[1] + _divided(m[2], m[3]), rule["expr"])
        if "for" in rule:
            rule["for"] = _divided(rule["for"][:-1], rule["for"][-1])
    return found


def _divided(number: str, unit: str) -> str:
    return f"{int(number) * _SECONDS[unit] * 1000 // SPEED}ms"


class StatusPage:
    """Stands in for Nginx's `stub_status`, which the Nginx of the tests is built without. `broken`: answers 500."""

    TEXT = b"Active connections: 7 \nserver accepts handled requests\n 90 90 90 \nReading: 0 Writing: 5 Waiting: 2 \n"

    def __init__(self) -> None:
        page = self
        page.broken = False

        class Handler(SilentHandler):
            def do_GET(self) -> None:
                self.send_response(500 if page.broken else 200)
                self.end_headers()
                self.wfile.write(StatusPage.TEXT)

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}/stub_status"

    @contextmanager
    def served(self) -> Iterator["StatusPage"]:
        with serving_in_thread(self._server):
            yield self


class Observers:
    """`with observing(stack, folder) as observers: ...`"""

    def __init__(self, stack: Stack, folder: Path, status_page: StatusPage) -> None:
        folder.mkdir()
        prometheus, alertmanager, exporter = free_ports(3)
        pods = [_target(pod.internal_port, f"pod-{pod.number}") for pod in stack.pods]
        targets = {"carillon-gateway": pods, "carillon-edge": [_target(exporter, "edge-1")]}
        config = _configuration(folder, targets, alertmanager)
        own = MONITORING / "alertmanager" / "alertmanager.yml"
        self.status_page = status_page
        self._prometheus = httpx.Client(base_url=f"http://{HOST}:{prometheus}", trust_env=False, timeout=10)
        self._alertmanager = httpx.Client(base_url=f"http://{HOST}:{alertmanager}", trust_env=False, timeout=10)
        self.children = [
            _child(
                "alertmanager",
                folder,
                alertmanager,
                "/-/ready",
                f"--config.file={own}",
                f"--storage.path={folder / 'alerts'}",
                "--cluster.listen-address=",
            ),
            _child("nginx-exporter", folder, exporter, "/metrics", f"--nginx.scrape-uri={status_page.url}"),
            _child(
                "prometheus",
                folder,
                prometheus,
                "/-/ready",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
            ),
        ]

    def firing(self) -> set[tuple[str, str]]:
        """Alertmanager's active alerts: name, and the pod or else the job that it is about."""
        found = self._alertmanager.get("/api/v2/alerts").raise_for_status().json()
        labels = [alert["labels"] for alert in found if alert["status"]["state"] == "active"]
        return {(each["alertname"], each.get("instance") or each.get("job", "")) for each in labels}

    def healthy_targets(self) -> int:
        return sum(float(value) for _, value in self.values("sum(up)"))

    def values(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The answer to an instant query."""
        answer = self._prometheus.post("/api/v1/query", data={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return [(sample["metric"], float(sample["value"][1])) for sample in answer.json()["data"]["result"]]

    def close(self) -> None:
        self._prometheus.close()
        self._alertmanager.close()


@contextmanager
def observing(stack: Stack, folder: Path) -> Iterator[Observers]:
    """Returns when every pod and the edge have been scraped. Skips the test where a program is missing."""
    with StatusPage().served() as page:
        observers = Observers(stack, folder, page)
        try:
            for child in observers.children:
                child.start()
            for child in observers.children:
                wait_until(lambda child=child: _serves(child), f"{child.service.name} is ready", timeout=30)
            wait_until(lambda: observers.healthy_targets() == len(stack.pods) + 1, "all are scraped", timeout=30)
            yield observers
        finally:
            observers.close()
            stop(observers.children)


def _target(port: int, instance: str) -> dict[str, Any]:
    """With a namespace, as in a cluster: it comes before a metric's own label of that name."""
    return {"targets": [f"{HOST}:{port}"], "labels": {"instance": instance, "namespace": NAMESPACE}}


def _configuration(folder: Path, targets: dict[str, list[dict[str, Any]]], alertmanager: int) -> Path:
    """Compose's, with addresses in the place of names."""
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text("utf-8"))
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(faster(RULES.read_text("utf-8"))), "utf-8")
    config["global"] = {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE, "scrape_timeout": SCRAPE}
    config["rule_files"] = [str(rules)]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"{HOST}:{alertmanager}"]
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = targets[job["job_name"]]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    return file


def _child(name: str, folder: Path, port: int, ready: str, *arguments: str) -> Child:
    command = (parts.require(name), f"--web.listen-address={HOST}:{port}", *arguments)
    service = Service(
        name=name,
        command=command,
        log=folder / f"{name}.log",
        is_ready=lambda: probes.http_status(port, ready) == 200,
        folder=folder,
        patience=5,
    )
    return Child(service)


def _serves(child: Child) -> bool:
    assert child.running, f"{child.service.name} ended:\n{child.log_tail()}"
    return child.service.is_ready()
