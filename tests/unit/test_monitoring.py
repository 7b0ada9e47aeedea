"""Alerts, their runbooks and the metrics that they name belong together."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import parts
from tests.support.exported import EXPORTED, OF_THE_TARGET
from tests.support.promql import grouped_by, selectors

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules" / "carillon.yaml"
TESTS = RULES.with_suffix(".test.yaml")
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))
RUNBOOKS = sorted((ROOT / "runbooks").glob("*.md"))


@pytest.mark.parametrize("command", [["check", "rules", str(RULES)], ["test", "rules", str(TESTS)]], ids=lambda c: c[0])
def test_promtool_agrees(command: list[str]) -> None:
    _agrees(parts.require("promtool"), *command)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_test_and_a_runbook(alert: str) -> None:
    tests = TESTS.read_text("utf-8")
    assert re.search(rf"alertname: {alert}\n\s+exp_alerts:", tests), "when it fires"
    assert re.search(rf"alertname: {alert}\n(?!\s+exp_alerts)", tests), "when it does not"
    assert f"runbook_url: runbooks/{alert}.md" in RULES.read_text("utf-8")
    assert ROOT / "runbooks" / f"{alert}.md" in RUNBOOKS


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda path: path.stem)
def test_each_runbook_belongs_to_an_alert_and_says_the_same_four_things(runbook: Path) -> None:
    text = runbook.read_text("utf-8")
    assert runbook.stem in ALERTS
    assert re.findall(r"^# (\w+)", text, re.MULTILINE) == [runbook.stem]
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert "```sh" in text


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_reads_what_is_exported_and_says_what_to_do(rule: dict[str, Any]) -> None:
    read = selectors(rule["expr"])
    assert read
    for selector in read:
        assert selector.labels <= EXPORTED[selector.name] | OF_THE_TARGET, selector.name
    assert grouped_by(rule["expr"]) in (set(), {"cluster", "namespace", "job"}), (
        "several deployments share a Prometheus"
    )
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url", "dashboard_url"}
    assert rule["annotations"]["dashboard_url"] == "d/carillon-fleet"


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda path: path.name)
def test_runbooks_name_only_metrics_that_exist(page: Path) -> None:
    for name in re.findall(r"\bcarillon_[a-z_]+[a-z]\b(?!/)", page.read_text("utf-8")):
        assert any(exported.startswith(name) for exported in EXPORTED), name


def alternatives(pattern: str) -> list[str]:
    """`a(b|c(d|e))|f` -> `a(b)`, `a(c(d|e))`, `f`: each has to find something."""
    found: list[str] = []
    depth = start = 0
    for at, letter in enumerate(pattern):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            found.append(pattern[start:at])
            start = at + 1
    found.append(pattern[start:])
    if len(found) > 1:
        return [each for part in found for each in alternatives(part)]
    before, opened, rest = pattern.partition("(")
    inner, closed, after = rest.rpartition(")")
    return [f"{before}({each}){after}" for each in alternatives(inner)] if opened and closed else [pattern]


def greps(text: str, command: str) -> list[str]:
    """What the page looks for in the output of a command."""
    return re.findall(rf"^{command}.*?\| grep -E '([^']+)'", text, re.MULTILINE)


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda path: path.name)
def test_what_runbooks_look_for_is_there_to_be_found(page: Path) -> None:
    text = page.read_text("utf-8")
    exposed = [f"{name} " for name in EXPORTED]
    for pattern in (one for found in greps(text, "curl -s http://POD:9000/metrics") for one in alternatives(found)):
        assert any(re.search(pattern, line) for line in exposed), pattern
    code = "".join(path.read_text("utf-8") for path in (ROOT / "app").rglob("*.py"))
    for pattern in (one for found in greps(text, "kubectl logs POD") for one in alternatives(found)):
        assert re.search(f'log\\.\\w+\\("{pattern}"', code), pattern


def test_each_alternative_is_looked_at() -> None:
    assert alternatives("a_(b|c_(d|e)_f)|g") == ["a_(b)", "a_(c_(d)_f)", "a_(c_(e)_f)", "g"]


def test_the_alertmanager_takes_its_configuration() -> None:
    config = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
    _agrees(parts.require("amtool"), "check-config", str(config))
    inhibited = yaml.safe_load(config.read_text("utf-8"))["inhibit_rules"]
    assert set(re.findall(r"Carillon\w+", str(inhibited))) <= set(ALERTS)


@pytest.mark.parametrize("name", ["prometheus.yml", "kubernetes.yml"])
def test_prometheus_takes_its_configuration(name: str, tmp_path: Path) -> None:
    """Debian's Prometheus is built without Kubernetes: it sees the pods as files there."""
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / name).read_text("utf-8"))
    for job in config["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):
            job["file_sd_configs"] = [{"files": ["pods.json"]}]
    config["rule_files"] = [str(RULES.parent.parent / "prometheus" / file) for file in config["rule_files"]]
    (tmp_path / "pods.json").write_text("[]")
    (tmp_path / name).write_text(yaml.safe_dump(config))
    _agrees(parts.require("promtool"), "check", "config", str(tmp_path / name))
    assert {job["job_name"] for job in config["scrape_configs"]} == {"carillon-gateway", "carillon-edge"}


def test_kustomize_makes_objects_of_the_same_files() -> None:
    done = _agrees(parts.require("kubectl"), "kustomize", str(ROOT / "monitoring"))
    dashboards, rule = sorted(yaml.safe_load_all(done), key=lambda made: made["kind"])
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    files = {path.name: path.read_text("utf-8") for path in (ROOT / "monitoring" / "dashboards").glob("*.json")}
    assert dashboards["data"] == files
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load(RULES.read_text("utf-8"))


def test_the_links_become_whole_as_the_docs_say(tmp_path: Path) -> None:
    [replacements] = re.findall(r"```yaml\n(.+?)```", (ROOT / "docs" / "monitoring.md").read_text("utf-8"), re.DOTALL)
    shutil.copytree(ROOT / "monitoring", tmp_path / "monitoring")
    where = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "where-the-docs-are"}}
    (tmp_path / "where.yaml").write_text(yaml.safe_dump(where | {"data": {"url": "https://docs.example.com/carillon"}}))
    (tmp_path / "kustomization.yaml").write_text(f"resources: [monitoring, where.yaml]\n{replacements}")
    made = list(yaml.safe_load_all(_agrees(parts.require("kubectl"), "kustomize", str(tmp_path))))
    [rule] = [each for each in made if each["kind"] == "PrometheusRule"]
    links = {each["annotations"]["runbook_url"] for each in rule["spec"]["groups"][0]["rules"]}
    assert links == {f"https://docs.example.com/carillon/runbooks/{alert}.md" for alert in ALERTS}


def _agrees(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
