"""Stand-ins for the official images where no registry can be reached: Debian's packages in their places.

Made once by debootstrap, kept as tars in .cache/deploy. Their sizes and versions say nothing about the real ones."""

import inspect
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.engine import ROOT, Engine, Failed

CACHE = ROOT / ".cache" / "deploy"
PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The official image's; Debian gives its own users other numbers.
NGINX_USER = "nginx:x:101:101:nginx:/nonexistent:/bin/false\n"
VALKEY_UID = 999
NOBODY = 65534


@dataclass(frozen=True)
class System:
    """A Debian of these packages, and what makes it like an official image."""

    suite: str
    packages: Sequence[str]
    adapt: Callable[[Path], None]

    def tar(self) -> Path:
        """Made at the first call; later ones find it, unless the recipe has changed."""
        recipe = f"{' '.join(self.packages)}\n{inspect.getsource(self._make)}\n{inspect.getsource(self.adapt)}"
        target = CACHE / f"{self.suite}-{zlib.crc32(recipe.encode()):08x}.tar"
        if not target.exists():
            for old in CACHE.glob(f"{self.suite}-*"):
                old.unlink()
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                self._make(Path(folder), target)
        return target

    def _make(self, folder: Path, target: Path) -> None:
        root, draft = folder / "root", folder / "draft"
        _call("debootstrap", "--variant=minbase", f"--include={','.join(self.packages)}", self.suite, str(root))
        for cached in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
            cached.unlink()
        # A mirror may be late; no packages are installed but in the build stage.
        (root / "etc/apt/apt.conf.d/99stand-in").write_text('Acquire::Check-Valid-Until "false";\n')
        self.adapt(root)
        _call("tar", "--create", "--numeric-owner", "--file", str(draft), "--directory", str(root), ".")
        draft.rename(target)


def _like_python_slim(root: Path) -> None:
    """Python in /usr/local with pip, and its library not compiled. It serves as Valkey's image too."""
    local = root / "usr/local"
    packages = local / "lib/python3.13/dist-packages"
    packages.mkdir(parents=True, exist_ok=True)
    for found in root.glob("usr/lib/python3/dist-packages/pip*"):
        found.rename(packages / found.name)
    for found in root.glob("usr/bin/pip*"):
        found.rename(local / "bin" / found.name)
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to("/usr/bin/python3.13")
    for compiled in root.glob("usr/**/*.pyc"):
        compiled.unlink()
    (root / "data").mkdir()
    os.chown(root / "data", VALKEY_UID, VALKEY_UID)
    _trust_what_the_machine_trusts(root)


def _trust_what_the_machine_trusts(root: Path) -> None:
    """pip in the build stage goes the machine's way to its index."""
    trusted = Path(os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt")
    lines = ["[global]"]
    if trusted.exists():
        shutil.copyfile(trusted, root / "etc/ssl/certs/ca-certificates.crt")
        lines.append("cert = /etc/ssl/certs/ca-certificates.crt")
    if index := os.environ.get("PIP_INDEX_URL"):
        lines.append(f"index-url = {index}")
    (root / "etc/pip.conf").write_text("\n".join([*lines, ""]))


def _like_nginx(root: Path) -> None:
    """Its user's number. It serves as what watches too, and brings Compose and buildx."""
    users = root / "etc/passwd"
    users.write_text("".join(line for line in users.open() if ":101:" not in line) + NGINX_USER)
    for data in ("prometheus", "alertmanager"):
        (root / data).mkdir()
        os.chown(root / data, NOBODY, NOBODY)


PYTHON = System("trixie", ("python3", "python3-pip", "ca-certificates", "valkey-server"), _like_python_slim)
WATCHES = ("prometheus", "prometheus-alertmanager", "prometheus-nginx-exporter")
NGINX = System("sid", ("nginx", "curl", "ca-certificates", *WATCHES), _like_nginx)


def provide(engine: Engine) -> None:
    """Gives the engine all images that a build and Compose ask for, but Grafana's, which Debian does not have."""
    engine.take(PYTHON.tar(), "python:3.13-slim", PATH, 'CMD ["python3"]')
    engine.derive("python:3.13-slim", "valkey/valkey:9.1", "VOLUME /data", "WORKDIR /data")
    engine.take(NGINX.tar(), "nginx:1.30", PATH)
    for program, tag in zip(WATCHES, _tags_of_what_watches(), strict=True):
        engine.derive("nginx:1.30", tag, f'ENTRYPOINT ["/usr/bin/{program}"]', f"USER {NOBODY}:{NOBODY}")


def _tags_of_what_watches() -> list[str]:
    """As compose.yaml names them."""
    text = (ROOT / "compose.yaml").read_text("utf-8")
    variables = ("PROMETHEUS_IMAGE", "ALERTMANAGER_IMAGE", "NGINX_EXPORTER_IMAGE")
    return [re.findall(rf"\$\{{{variable}:-(.*)\}}", text)[0] for variable in variables]


def plugins() -> list[Path]:
    """Compose and buildx out of Debian sid's packages, as they are newer than what stable has."""
    folder = CACHE / "plugins"
    found = [folder / name for name in ("docker-compose", "docker-buildx")]
    if not all(plugin.exists() for plugin in found):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            root = Path(scratch) / "root"
            root.mkdir()
            _call("tar", "--extract", "--file", str(NGINX.tar()), "--directory", str(root))
            shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
            _call("chroot", str(root), "apt-get", "update")
            _call("chroot", str(root), "sh", "-c", "cd /opt && apt-get download docker-compose docker-buildx")
            for package in root.glob("opt/*.deb"):
                _call("dpkg-deb", "--extract", str(package), str(root / "opt"))
            for plugin in found:
                shutil.copy(root / "opt/usr/libexec/docker/cli-plugins" / plugin.name, plugin)
    return found


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
