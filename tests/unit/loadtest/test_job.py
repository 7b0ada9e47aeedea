"""The example that generates load in a cluster: valid, and its settings are ones that the program takes."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from loadtest.plan import read

JOB = Path(__file__).parents[3] / "loadtest" / "k8s" / "load.yaml"
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(JOB.read_text("utf-8")))
CONFIG_MAP, SERVICE, WORK = OBJECTS


@pytest.mark.parametrize("version", ["1.35", "1.36", "1.37"])
def test_every_object_is_valid(version: str) -> None:
    for found in OBJECTS:
        kubernetes_validate.validate(found, version, strict=True)


def test_its_settings_make_a_plan_with_a_process_for_each_generator() -> None:
    secrets = {"CARILLON_TOKEN_HMAC_SECRET": "a", "CARILLON_API_KEYS": "b"}
    plan = read(CONFIG_MAP["data"] | secrets)
    generators = WORK["spec"]["completions"] - 1
    assert plan.processes == generators == WORK["spec"]["parallelism"] - 1
    assert plan.users <= generators * 1000
    [container] = WORK["spec"]["template"]["spec"]["containers"]
    assert f"--expect-workers {generators} " in container["args"][0]
    assert {one["name"] for one in container["env"]} == set(secrets)


def test_the_generators_find_the_master_by_its_name() -> None:
    name, pod = WORK["metadata"]["name"], WORK["spec"]["template"]
    assert pod["spec"]["subdomain"] == SERVICE["metadata"]["name"]
    assert SERVICE["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert f"--master-host {name}-0.{SERVICE['metadata']['name']}" in pod["spec"]["containers"][0]["args"][0]
