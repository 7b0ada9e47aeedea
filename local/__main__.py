"""`python -m local`, the end of `make run`: Valkey, the pods and Nginx until Ctrl-C."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from local import secrets
from local.errors import LocalError
from local.ports import HOST, demand_free
from local.stack import ROOT, plan
from local.supervisor import Supervisor

STATE = ROOT / ".local"
TOKEN_TTL = 12 * 3600


def main() -> int:
    """Exit code 0 after Ctrl-C or SIGTERM, 1 with one line on stderr where the stack cannot start or keeps dying."""
    started = monotonic()
    try:
        port = _number(os.environ, "PORT", 8080, 65_535)
        pods = _number(os.environ, "CARILLON_PODS", 2, 64)
        _number(os.environ, "WEB_CONCURRENCY", 2, 64)
        demand_free(port, "PORT")
        environ = {**os.environ, **secrets.missing(os.environ, STATE / "secrets.json")}
        api_key = secrets.first_api_key(environ)
        folder = STATE / str(port)
        stack = plan(folder, port=port, pods=pods, environ=environ)
        _say(f"Starting Valkey, {pods} pods and Nginx; logs in {_short(folder)}/ ...")
        token = _Token(stack.pods[0].service.env)
        try:
            Supervisor(stack.stages, _say).run(
                on_ready=lambda: _say(_welcome(port, token.text(), api_key, monotonic() - started))
            )
        finally:
            token.stop()
    except LocalError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:  # before the supervisor listens to signals
        return 130
    _say("Stopped.")
    return 0


class _Token:
    """A ready-made token, made by the gateway's own command while the servers start."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        rights = ("--rooms", "*", "--publish", "*", "--ttl", str(TOKEN_TTL))
        command = (sys.executable, "-m", "app", "token", "--user", "developer", *rights)
        self._process = subprocess.Popen(
            command, env=dict(environ), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def text(self) -> str:
        """Raises LocalError."""
        output, errors = self._process.communicate()
        if self._process.returncode:
            raise LocalError(f"No token could be made: {errors.strip()}")
        return output.strip()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def _number(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise LocalError(f"{name}={text} must be a number from 1 to {most}.")
    return int(text)


def _welcome(port: int, token: str, api_key: str, seconds: float) -> str:
    address = f"{HOST}:{port}"
    python = _short(Path(sys.executable))
    return f"""
Carillon is ready after {seconds:.1f} s:  http://{address}
A token for every room, good for {TOKEN_TTL // 3600} hours:
{token}

Subscribe:  {python} -m local.subscribe ws://{address}/ws/chat:lobby {token}
Publish:    curl http://{address}/api/publish -H 'X-API-Key: {api_key}' -H 'Content-Type: application/json' \
-d '{{"room": "chat:lobby", "data": "hello"}}'
Demo:       http://{address}/

Ctrl-C stops it.
"""


def _short(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
