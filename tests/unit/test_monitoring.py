"""Alerts, their runbooks and the metrics that they name belong together."""

import re
import subprocess
from pathlib import Path

import pytest

from app.telemetry.metrics import CATALOGUE
from tests.support import parts

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules" / "carillon.yaml"
TESTS = RULES.with_suffix(".test.yaml")
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))
RUNBOOKS = sorted((ROOT / "runbooks").glob("*.md"))
EXPORTED = {metric.name for metric in CATALOGUE} | {
    f"{metric.name}_{part}" for metric in CATALOGUE if metric.kind == "histogram" for part in ("bucket", "count", "sum")
}


@pytest.mark.parametrize("command", [["check", "rules", str(RULES)], ["test", "rules", str(TESTS)]], ids=lambda c: c[0])
def test_promtool_agrees(command: list[str]) -> None:
    done = subprocess.run([parts.require("promtool"), *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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


@pytest.mark.parametrize("page", [RULES, *RUNBOOKS], ids=lambda path: path.name)
def test_only_metrics_that_exist_are_named(page: Path) -> None:
    named = set(re.findall(r"\bcarillon_[a-z_]+[a-z]\b(?!/)", page.read_text("utf-8")))
    for name in named:
        assert any(exported.startswith(name) for exported in EXPORTED), name
    if page == RULES:
        assert named <= EXPORTED
