"""The overlay that k8s/README.md shows works as it stands there."""

import os
import re
from pathlib import Path

import pytest

from tests.support import manifests as support
from tests.support import parts
from tests.support.manifests import ROOT, Manifests
from tests.support.pod_settings import environment

README = (ROOT / "k8s" / "README.md").read_text()


@pytest.fixture
def own(tmp_path: Path) -> Manifests:
    """The README's overlay, rendered. It lies elsewhere, so that the checkout stays as it is."""
    parts.require("kubectl")
    files = re.findall(r"`k8s/overlays/mine/([\w.]+)`[^\n]*\n\n```\w+\n(.*?)```", README, re.DOTALL)
    beside = os.path.relpath(ROOT / "k8s", tmp_path.resolve())
    for name, text in files:
        text = text.replace("- ../production", f"- {beside}/overlays/production")
        (tmp_path / name).write_text(text.replace("../../components", f"{beside}/components"))
    assert {name for name, _ in files} == {"kustomization.yaml", "carillon.toml", "urls.yaml", "backends.yaml"}
    return support.kustomized("the README's overlay", tmp_path.resolve())


def test_images_settings_and_hosts_are_set(own: Manifests) -> None:
    images = {container["image"] for pod in own.pods() for container in pod.containers}
    assert not any("{" in image for image in images)
    gateway = next(pod for pod in own.pods() if pod.component == "gateway").container("gateway")
    assert environment(own, gateway)["CARILLON_ALLOWED_ORIGINS"] == "https://app.example.com"
    assert environment(own, gateway)["CARILLON_CONNECTION_MAX_AGE"] == "14400"
    assert own.one("Ingress", "carillon")["spec"]["rules"][0]["host"] == "ws.example.com"
    files = [config["data"]["carillon.toml"] for config in own.of("ConfigMap") if "carillon.toml" in config["data"]]
    assert ["presence = true" in text for text in files] == [True]


def test_alerts_lead_to_ones_own_pages(own: Manifests) -> None:
    rules = [rule for group in own.one("PrometheusRule", "carillon")["spec"]["groups"] for rule in group["rules"]]
    pages = [rule["annotations"]["runbook_url"] for rule in rules]
    assert pages == [f"https://docs.example.com/carillon/runbooks/{rule['alert']}.md" for rule in rules]
    assert {rule["annotations"]["dashboard_url"].rpartition("/d/")[0] for rule in rules} == {
        "https://docs.example.com/carillon"
    }


def test_everything_is_in_the_namespace(own: Manifests) -> None:
    outside = [found["kind"] for found in own.objects if found["metadata"].get("namespace") != "carillon"]
    assert outside == ["Namespace"]


def test_every_folder_is_in_the_readme() -> None:
    named = set(re.findall(r"`(?:overlays/|components/)?([\w-]+)`", README.partition("## Try it")[0]))
    assert {folder.name for folder in (*support.OVERLAYS.iterdir(), *support.COMPONENTS.iterdir())} <= named
