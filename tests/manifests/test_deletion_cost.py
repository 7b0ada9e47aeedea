"""The program that writes deletion costs is started as it wants to be, and finds the gateways and nobody else.

What it may do is in test_security.py."""

import pytest

from app.cli import main
from tests.support import manifests as rendering
from tests.support.manifests import Manifests, Pod

RENDERED = ("chart production", "k8s production+autoscaling")


@pytest.fixture(scope="module", params=RENDERED)
def rendered(request: pytest.FixtureRequest) -> Manifests:
    name: str = request.param
    return rendering.rendered(name)


@pytest.fixture
def program(rendered: Manifests) -> Pod:
    (found,) = (pod for pod in rendered.pods() if pod.component == "deletion-cost")
    return found


def test_its_command_line_is_one(program: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    """Else argparse would end it with a usage; outside of a pod it gets as far as missing the API server."""
    python, dash_m, app, *arguments = program.containers[0]["args"]
    assert (python, dash_m, app) == ("python", "-m", "app")
    assert main([*arguments, "--account", "/nowhere"]) == 2
    assert "this runs in a pod only" in capsys.readouterr().err


def test_it_finds_the_gateways_and_nobody_else(rendered: Manifests, program: Pod) -> None:
    arguments = program.containers[0]["args"]
    selector = dict(label.split("=") for label in arguments[arguments.index("--selector") + 1].split(","))
    found = [pod for pod in rendered.pods() if selector.items() <= pod.labels.items()]
    assert [pod.component for pod in found] == ["gateway"]
    assert "internal" in found[0].ports(), "where it reads their metrics"
