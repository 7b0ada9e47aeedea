"""Runs Helm on the chart, with the least that has to be said and whatever a test adds."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import parts
from tests.support.manifests import CHART, Manifest, Manifests, RenderingError, chart

MINIMAL = CHART / "ci" / "minimal.yaml"


def helm(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [parts.require("helm"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environ}
    )


def options(*values: str, base: Path = MINIMAL) -> list[str]:
    """Helm's options for values: `a.b=c`, or `a.b:=[1, 2]` for JSON (a number with a point is a text to `--set`)."""
    found = ["--values", str(base)]
    for value in values:
        found += ["--set-json", value.replace(":=", "=", 1)] if ":=" in value else ["--set", value]
    return found


@cache
def with_values(*values: str) -> Manifests:
    return chart(" ".join(values), *options(*values))


@cache
def refusal(*values: str) -> str:
    """What Helm says against these values; empty: nothing."""
    try:
        with_values(*values)
    except RenderingError as refused:
        return str(refused)
    return ""


def pod(manifests: Manifests, name: str) -> Manifest:
    template: Manifest = manifests.one("Deployment", f"carillon-{name}")["spec"]["template"]
    return template


def environment(manifests: Manifests, name: str) -> dict[str, Any]:
    """The variables of the Deployment itself, without those of ConfigMaps."""
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in pod(manifests, name)["spec"]["containers"][0]["env"]}


def settings(manifests: Manifests) -> dict[str, str]:
    data: dict[str, str] = manifests.one("ConfigMap", "carillon-gateway")["data"]
    return data
