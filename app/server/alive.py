"""`python -m app.server.alive`: whether the gateway of this machine answers /healthz. The image's HEALTHCHECK.

It runs every few seconds beside a gateway, so it imports nothing that is slow to import, the settings included."""

import os
import sys
import tomllib
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

TIMEOUT = 2.5  # seconds; less than the HEALTHCHECK's own, so that it can say why
DEFAULTS = {"internal_port": 9000, "public_port": 8000, "bind_host": "0.0.0.0"}


def address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Where the probes are answered, by the same settings that the gateway reads."""
    file = environ.get("CARILLON_CONFIG")
    settings: dict[str, Any] = DEFAULTS | (tomllib.loads(Path(file).read_text("utf-8")) if file else {})
    for name in DEFAULTS:
        value = environ.get(f"CARILLON_{name.upper()}", "")
        if value and "://" not in value:  # Kubernetes may inject CARILLON_..._PORT=tcp://... (N8)
            settings[name] = value
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(settings["bind_host"]), str(settings["bind_host"]))
    return host, int(settings["internal_port"]) or int(settings["public_port"])


def main() -> int:
    """0: alive. 1: not, and a line that says why."""
    try:
        host, port = address(os.environ)
        connection = HTTPConnection(host, port, timeout=TIMEOUT)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException, ValueError) as error:
        print(f"carillon: /healthz: {error}", file=sys.stderr)
        return 1
    if status != 200:
        print(f"carillon: /healthz answered {status}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
