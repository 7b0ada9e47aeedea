"""The list of what the gateway's image installs is complete, has the lock's hashes, and is the same each time."""

import json
import re
import subprocess
from typing import Any

import pytest

from local.stack import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]  # installs an environment of its own at first
SBOM = ROOT / "dist" / "carillon.cdx.json"


def made() -> bytes:
    ran = subprocess.run(["make", "sbom"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return SBOM.read_bytes()


def hashes(component: dict[str, Any]) -> set[str]:
    return {entry["content"] for reference in component["externalReferences"] for entry in reference["hashes"]}


def test_the_list_is_that_of_the_lock() -> None:
    listed = made()
    lock = (ROOT / "requirements" / "image.txt").read_text("utf-8")
    locked = {
        (name, version): set(re.findall(r"sha256:([0-9a-f]{64})", rest))
        for name, version, rest in re.findall(r"^([\w.-]+)==(\S+)(.*?)(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    }
    bom = json.loads(listed)
    assert bom["bomFormat"] == "CycloneDX"
    assert bom["metadata"]["component"]["name"] == "carillon"
    assert {(part["name"], part["version"]): hashes(part) for part in bom["components"]} == locked
    assert all(len(found) >= 1 for found in locked.values())
    assert made() == listed
