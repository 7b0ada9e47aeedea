"""The release and the load pod of the tests on a cluster, run in Docker, where there is no cluster."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import EDGE, GATEWAY
from tests.deploy.engine import Engine
from tests.deploy.kubelet import RunningPod
from tests.deploy.load_pod import PROGRAM, manifests, troubles
from tests.deploy.test_cluster import values
from tests.deploy.test_pods_run import VALKEY, with_secret
from tests.support import parts
from tests.support.cluster import ROOT, Image, Images, helm, release_arguments
from tests.support.commands import run
from tests.support.manifests import Manifests
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

IMAGES = Images(Image.of(GATEWAY), Image.of(EDGE), Image.of(VALKEY))
CLIENTS = 200


@dataclass
class Site:
    """What runs, by the names of the specifications."""

    engine: Engine
    pods: dict[str, list[RunningPod]]

    def ask(self, word: str) -> dict[str, Any]:
        (load,) = self.pods["load"]
        done = self.engine.try_run("exec", load.id, "python", "-m", PROGRAM, "ask", word, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr + load.log()
        print(f"{word}: {done.stdout.strip()}")
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@pytest.fixture(scope="module")
def specifications(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    """All of the release, and the load."""
    parts.require("helm")
    file = tmp_path_factory.mktemp("values") / "values.yaml"
    file.write_text(yaml.safe_dump(values(IMAGES)))
    _, *arguments = [one for one in release_arguments("install", file) if not one.startswith(("--wait", "--timeout"))]
    release = [one for one in yaml.safe_load_all(run(helm("carillon", "template", *arguments))) if one]
    load = manifests(IMAGES.gateway, clients=CLIENTS, edge="carillon-edge:8080", api="carillon-gateway:9000")
    return with_secret(Manifests("release", (*release, *load)), redis_url="")


@pytest.fixture(scope="module")
def site(engine: Engine, specifications: Manifests, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not engine.is_own:
        pytest.skip("a kubelet reaches its containers by their addresses: only with an engine of the tests' own")
    folder = tmp_path_factory.mktemp("pods")
    folder.chmod(0o755)
    network = f"carillon-load-{os.getpid()}"
    by_component = {pod.component or "load": pod for pod in specifications.pods()}
    wanted = {
        "gateway": ("carillon-gateway", "carillon-gateway-headless.carillon.svc.cluster.local"),
        "edge": ("carillon-edge",),
        "load": ("load",),
    }
    with ExitStack() as opened:
        engine.run("network", "create", network)
        opened.callback(engine.run, "network", "rm", network)
        valkey = f"{network}-valkey"
        command = ("valkey-server", "--protected-mode no", '--save ""', "--dir /tmp")
        options = (f"--name={valkey}", f"--network={network}", "--network-alias=carillon-valkey")
        engine.run("run", "--detach", *options, VALKEY, *command)
        opened.callback(engine.run, "rm", "--force", "--volumes", valkey)
        made: dict[str, list[RunningPod]] = {component: [] for component in wanted}
        for component, aliases in wanted.items():
            for number in range(1 if component == "load" else 2):
                image = EDGE if component == "edge" else GATEWAY
                name = f"{network}-{component}-{number}"
                pod = RunningPod(engine, specifications, by_component[component], image, folder, name)
                pod.start(network, aliases)
                opened.callback(pod.remove)
                made[component].append(pod)
            for pod in made[component] if component != "load" else ():
                pod.started()
        yield Site(engine, made)


def test_the_page_on_deploying_has_commands_that_work_in_a_gateway(site: Site) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    commands = re.findall(r"exec deploy/carillon-gateway -- (.*)", page)
    assert len(commands) == 2
    token, published = (site.engine.run("exec", site.pods["gateway"][0].id, *shlex.split(one)) for one in commands)
    assert token.count(".") == 2
    assert json.loads(published).keys() == {"epoch", "offset"}


def test_nothing_is_lost_while_a_gateway_and_an_edge_end(site: Site) -> None:
    wait_until(lambda: site.ask("state")["open"] == CLIENTS, "all clients are in their rooms", 90)
    for component in ("gateway", "edge"):
        site.ask("begin")
        ended = site.pods[component][0].terminate()
        told = site.ask("settle")
        assert ended.code == 0, site.pods[component][0].log()
        assert troubles(told) == [], "\n".join(troubles(told))
        assert told["closes"].keys() == {"3001"}


def test_the_program_for_deletion_costs_is_in_the_image(engine: Engine, specifications: Manifests) -> None:
    """It says what it lacks here: the API server."""
    (pod,) = (pod for pod in specifications.pods() if pod.component == "deletion-cost")
    options = ("--rm", "--read-only", f"--user={pod.spec['securityContext']['runAsUser']}", "--cap-drop=ALL")
    done = engine.try_run("run", *options, "--network=none", GATEWAY, *pod.spec["containers"][0]["args"])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "this runs in a pod only" in done.stderr


def test_folder_of_the_program_is_not_in_the_image(engine: Engine) -> None:
    """What is shipped must not meet another version of itself."""
    listed = engine.run("run", "--rm", "--network=none", GATEWAY, "ls", str(Path("/srv/carillon")))
    assert "tests" not in listed.split()
