"""A Docker engine for tests: the one that DOCKER_HOST names, else one of the tests' own, gone with all that it made.

The own one needs root and Debian's packages; it reaches no registry, so stand-ins take the base images' place."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.child import Child, Service, stop
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PACKAGES = ("docker.io", "debootstrap")

#: No docker0, no rules and no forwarding: what containers need of each other goes over the bridges of their networks.
_QUIET = ("--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false", "--oom-score-adjust=0")
#: Where Docker's own choice would hit what the machine already has.
_ADDRESSES = "base=10.99.0.0/16,size=24"


def find() -> str | None:
    """What the tests can use: DOCKER_HOST's engine, or an own one. None: neither."""
    client = shutil.which("docker")
    if os.environ.get("DOCKER_HOST"):
        return client
    own = os.geteuid() == 0 and shutil.which("dockerd") and shutil.which("debootstrap") and shutil.which("tar")
    return client if own else None


def install() -> None:
    """Debian's packages by apt, without starting their services. For who has asked for it (CARILLON_REQUIRE)."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environ = os.environ | {"RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
        command = ("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)
        subprocess.run(("apt-get", "update"), env=environ, capture_output=True, check=False)
        subprocess.run(command, env=environ, capture_output=True, check=False)


class Failed(AssertionError):
    """A command of Docker's that should have worked did not."""


@dataclass(frozen=True)
class Engine:
    """`is_own`: it reaches no registry, and what builds fetch goes over the machine's own network."""

    environ: Mapping[str, str]
    is_own: bool

    def try_run(
        self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """`docker ...` in the root of the repository."""
        environ = {**self.environ, **(env or {})}
        command = ("docker", *arguments)
        return subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=timeout, check=False
        )

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120) -> str:
        """What it prints. Raises Failed with its words."""
        done = self.try_run(*arguments, env=env, timeout=timeout)
        if done.returncode != 0:
            raise Failed(f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("inspect", name))[0]
        return found

    def build(self, tag: str, *arguments: str) -> None:
        network = ("--network", "host") if self.is_own else ()
        self.run("buildx", "build", "--load", "--progress", "plain", *network, "-t", tag, *arguments, ".", timeout=600)

    def take(self, root: Path, tag: str, *changes: str) -> None:
        """Makes an image of a tar of a root file system."""
        self.run("import", *_options(changes), str(root), tag)

    def derive(self, base: str, tag: str, *changes: str) -> None:
        """Another image of the same files."""
        container = self.run("create", base, "true")
        self.run("commit", *_options(changes), container, tag)
        self.run("rm", container)

    def clear(self) -> None:
        """Removes all that an own engine has, but for images."""
        for kind, remove in (("container", "rm --force --volumes"), ("network", "rm"), ("volume", "rm --force")):
            listed = (kind, "ls", "--quiet", *(["--all"] if kind == "container" else []))
            made = ("--filter", "type=custom") if kind == "network" else ()
            if found := self.run(*listed, *made).split():
                self.run(kind, *remove.split(), *found)


def _options(changes: Sequence[str]) -> list[str]:
    return [word for change in changes for word in ("--change", change)]


def named() -> Engine:
    """That of DOCKER_HOST."""
    return Engine(dict(os.environ), is_own=False)


@contextmanager
def own(plugins: Sequence[Path]) -> Iterator[Engine]:
    """One of the tests' own: its sockets, data and networks are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="carillon-docker-"))  # short: a socket's path has no more than 107 bytes
    engine = Engine(_environ(folder, plugins), is_own=True)
    daemon = Child(
        Service(
            name="dockerd",
            command=(
                *("dockerd", *_QUIET, f"--default-address-pool={_ADDRESSES}"),
                *(f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'pid'}"),
                *("--host", engine.environ["DOCKER_HOST"]),
            ),
            log=folder / "dockerd.log",
            is_ready=lambda: engine.try_run("version").returncode == 0,
            env=dict(os.environ),
            folder=folder,
            stop_signal=signal.SIGTERM,
            patience=30,
        )
    )
    try:
        daemon.start()
        _wait(daemon, daemon.service.is_ready)
        yield engine
        engine.clear()
    finally:
        with suppress(Failed, subprocess.TimeoutExpired):
            engine.clear()  # also after a failure, so that no bridge stays
        stop([daemon])
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _environ(folder: Path, plugins: Sequence[Path]) -> dict[str, str]:
    config = folder / "config"
    (config / "cli-plugins").mkdir(parents=True)
    for plugin in plugins:
        (config / "cli-plugins" / plugin.name).symlink_to(plugin)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"DOCKER_HOST": f"unix://{folder / 'docker.sock'}", "DOCKER_CONFIG": str(config)}


def _wait(daemon: Child, is_ready: Callable[[], bool]) -> None:
    wait_until(lambda: is_ready() or not daemon.running, "dockerd answers", timeout=60)
    if not daemon.running:
        raise Failed(f"dockerd does not start here:\n{daemon.log_tail(20)}")


def _unmount(folder: Path) -> None:
    """What a daemon that was killed has left mounted."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    for path in reversed(mounted):
        if path.startswith(f"{folder}/"):
            subprocess.run(("umount", "--lazy", path), capture_output=True, check=False)
