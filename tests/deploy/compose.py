"""Compose's default profile, under a name, a port and secrets of its own."""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import OctKey

from local.ports import HOST, free_ports
from tests.chaos.load import NAMESPACE
from tests.deploy.engine import Engine
from tests.support.stack import API_KEY, SECRET
from tests.support.waiting import wait_until

#: Seconds that a drain may take; a stop is granted 6 more, as the gateway asks for.
DRAIN = 6
GRACE = DRAIN + 8

#: What a test needs to look into it, and what a developer has beside compose.yaml taken away.
_FOR_TESTS = f"""
services:
  edge:
    env_file: !reset []
    environment: {{CARILLON_EDGE_API: "1"}}
  gateway:
    env_file: !reset []
    environment: {{CARILLON_NAMESPACES__{NAMESPACE.upper()}__HISTORY_SIZE: "10000", CARILLON_DRAIN_RATE: "0"}}
"""


class Site:
    """`site.up()` starts it, `site.down()` leaves nothing of it."""

    def __init__(self, engine: Engine, folder: Path, images: Mapping[str, str]) -> None:
        self.engine = engine
        self.port, self.prometheus, alertmanager = free_ports(3)
        self.url = f"http://{HOST}:{self.port}"
        self.ws_url = f"ws://{HOST}:{self.port}"
        self._override = folder / "tests.yaml"
        self._override.write_text(_FOR_TESTS)
        secrets = folder / "secrets"
        secrets.mkdir()
        for name, secret in (("token-hmac-secret", SECRET), ("api-keys", API_KEY), ("grafana-password", "none")):
            (secrets / name).write_text(secret)
        self._project = f"carillon-test-{os.getpid()}-{self.port}"
        self._env = {
            **images,
            "PORT": str(self.port),
            "PROMETHEUS_PORT": str(self.prometheus),
            "ALERTMANAGER_PORT": str(alertmanager),
            "CARILLON_SECRETS": str(secrets),
            "CARILLON_DRAIN_TIMEOUT": str(DRAIN),
            "CARILLON_TERMINATION_GRACE": str(GRACE),
        }

    def compose(self, *arguments: str) -> str:
        files = ("--file", "compose.yaml", "--file", str(self._override))
        options = ("--env-file", os.devnull, "--project-name", self._project, *files)
        return self.engine.run("compose", *options, *arguments, env=self._env, timeout=180)

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--wait", *arguments)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "1")

    def containers(self, service: str) -> list[str]:
        """The ids of those that run."""
        return self.compose("ps", "--quiet", service).split()

    def gateways(self) -> list[dict[str, Any]]:
        return [self.engine.inspect(container) for container in self.containers("gateway")]

    def stop(self, container: str) -> tuple[int, float]:
        """`docker stop`: the exit code, and how many seconds it took."""
        began = time.monotonic()
        self.engine.run("stop", container)
        took = time.monotonic() - began
        code: int = self.engine.inspect(container)["State"]["ExitCode"]
        return code, took

    def remove(self, container: str) -> None:
        self.engine.run("rm", "--volumes", container)

    # Use

    def token(self, user: str) -> str:
        """As an application's backend would sign it."""
        claims = {"sub": user, "rooms": ["*"], "publish": ["*"], "exp": int(time.time()) + 3600}
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))

    def publish(self, room: str, data: Any) -> None:
        """Over the server API, which the edge passes on for tests."""
        body = {"room": room, "data": data}
        headers = {"X-API-Key": API_KEY}
        answer = httpx.post(f"{self.url}/api/publish", json=body, headers=headers, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text

    def reachable(self, containers: Iterable[str], timeout: float = 60) -> None:
        """Waits until the edge leads new clients to each of these gateways: ready, and found in DNS.

        The edge takes the emptier of two, so while others have clients it can only be asked for the empty ones."""
        from websockets.exceptions import InvalidStatus
        from websockets.sync.client import connect

        missing = {container[:12] for container in containers}

        def met_all() -> bool:
            try:
                with connect(f"{self.ws_url}/ws", proxy=None) as client:
                    welcome = str(client.recv(timeout=10))
            except (InvalidStatus, OSError, EOFError):
                return False
            missing.difference_update({name for name in missing if name in welcome})
            return not missing

        wait_until(met_all, "the edge leads to all of them", timeout)
