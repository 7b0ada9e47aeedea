"""`local/venv.sh`, with programs that only pretend: what is made of what, and when nothing is done."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "local" / "venv.sh"

#: A Python that notes what it was asked to install; files in the folder say what it cannot do.
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) [ ! -e too-old ] ;;
    *base_prefix*) cat version ;;
    -V) echo "Python $(cat version)" ;;
    *ensurepip*) [ ! -e no-ensurepip ] ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/pip" ;;
    *"pip install"*) echo "$*" >> installs; [ ! -e no-index ] ;;
esac
"""
#: Makes a venv without pip, as uv does.
UV = """#!/bin/sh
echo "uv $*" >> installs
[ "$1" = pip ] || { mkdir -p .venv/bin; cp bin/python3 .venv/bin/python; }
"""
VIRTUALENV = """#!/bin/sh
echo "virtualenv $*" >> installs
mkdir -p .venv/bin; cp bin/python3 .venv/bin/python; cp bin/python3 .venv/bin/pip
"""
APT = """#!/bin/sh
echo "apt-get $*" >> installs
rm -f no-ensurepip
"""


class Checkout:
    """A folder with the script, two locks, and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("local", "requirements", "bin"):
            (folder / name).mkdir()
        shutil.copy(SCRIPT, folder / "local")
        self.write("requirements/run.txt", "run 1")
        self.write("requirements/test.txt", "test 1")
        self.write("requirements/bench.txt", "bench 1")
        self.write("version", "3.12.0")
        for tool in ("sh", "cat", "cksum", "rm", "cp", "mkdir", "dirname", "basename"):
            (folder / "bin" / tool).symlink_to(shutil.which(tool) or "")
        self.program("python3", PYTHON)
        self.program("id", "#!/bin/sh\necho 1000\n")

    def write(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def program(self, name: str, text: str) -> None:
        self.write(f"bin/{name}", text)
        (self.folder / "bin" / name).chmod(0o755)

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "bin" / "sh"), str(self.folder / "local" / "venv.sh"), *arguments]
        env = {"PATH": str(self.folder / "bin"), **environ}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)

    def installs(self) -> list[str]:
        """What was installed since the last call."""
        file = self.folder / "installs"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_run_installs_wheels_with_hashes_and_the_next_nothing(checkout: Checkout) -> None:
    first = checkout.run("run")
    assert first.returncode == 0
    assert "Making .venv with python3" in first.stdout
    [install] = checkout.installs()
    assert install.endswith("--require-hashes --only-binary :all: -r requirements/run.txt")
    second = checkout.run("run")
    assert (second.returncode, second.stdout, checkout.installs()) == (0, "", [])


def test_a_failed_install_is_said_and_started_over(checkout: Checkout) -> None:
    checkout.write("no-index")
    failed = checkout.run("run")
    assert failed.returncode == 1
    assert "The install failed" in failed.stderr
    checkout.write(".venv/half-made")
    (checkout.folder / "no-index").unlink()
    assert checkout.run("run").returncode == 0
    assert not (checkout.folder / ".venv" / "half-made").exists()


@pytest.mark.parametrize(("changed", "text"), [("requirements/run.txt", "run 2"), ("version", "3.13.0")])
def test_another_lock_or_python_makes_it_anew(checkout: Checkout, changed: str, text: str) -> None:
    checkout.run("run")
    checkout.write(".venv/old")
    checkout.write(changed, text)
    assert checkout.run("run").returncode == 0
    assert not (checkout.folder / ".venv" / "old").exists()


def test_the_test_lock_goes_on_top_and_serves_run_as_well(checkout: Checkout) -> None:
    checkout.run("run")
    checkout.write(".venv/kept")
    checkout.installs()
    checkout.run("test")
    [install] = checkout.installs()
    assert install.endswith("-r requirements/test.txt")
    assert (checkout.folder / ".venv" / "kept").exists()
    checkout.run("run")
    assert checkout.installs() == []


def test_a_fresh_test_venv_serves_run_as_well(checkout: Checkout) -> None:
    checkout.run("test")
    assert len(checkout.installs()) == 1
    checkout.run("run")
    assert checkout.installs() == []


def test_the_bench_lock_has_a_venv_to_itself(checkout: Checkout) -> None:
    checkout.run("test")
    checkout.write(".venv/kept")
    checkout.installs()
    made = checkout.run("bench")
    assert "Making .cache/bench/venv with python3" in made.stdout
    [install] = checkout.installs()
    assert install.endswith("-r requirements/bench.txt")
    assert (checkout.folder / ".cache" / "bench" / "venv" / "bin" / "python").exists()
    assert (checkout.folder / ".venv" / "kept").exists()
    again = checkout.run("bench"), checkout.run("test")
    assert [run.stdout for run in again] == ["", ""]
    assert checkout.installs() == []


def test_python_may_be_named_and_one_that_will_not_do_is_one_line(checkout: Checkout) -> None:
    checkout.program("python3", "#!/bin/sh\nexit 1\n")
    checkout.program("mine", PYTHON)
    assert "Making .venv with mine" in checkout.run("run", PYTHON="mine").stdout
    refused = checkout.run("run", PYTHON="python3")
    assert refused.stderr == "PYTHON=python3 is not a working Python 3.11 to 3.14.\n"


def test_the_newest_that_will_do_is_taken_where_python3_is_too_old(checkout: Checkout) -> None:
    checkout.program("python3", "#!/bin/sh\nexit 1\n")
    for name in ("python3.11", "python3.13"):
        checkout.program(name, PYTHON)
    assert "Making .venv with python3.13" in checkout.run("run").stdout


def test_no_python_is_one_line(checkout: Checkout) -> None:
    checkout.write("too-old")
    refused = checkout.run("run")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Python 3.11 to 3.14 is needed and none was found")
    assert refused.stderr.count("\n") == 1


class TestWithoutTheVenvModule:
    """As on a fresh Debian."""

    @pytest.fixture(autouse=True)
    def no_ensurepip(self, checkout: Checkout) -> None:
        checkout.write("no-ensurepip")

    def test_uv_will_do(self, checkout: Checkout) -> None:
        checkout.program("uv", UV)
        assert checkout.run("run").returncode == 0
        made, install = checkout.installs()
        assert made == "uv venv --quiet --python python3 .venv"
        assert install.endswith("--require-hashes --only-binary :all: -r requirements/run.txt")

    def test_virtualenv_will_do(self, checkout: Checkout) -> None:
        checkout.program("virtualenv", VIRTUALENV)
        assert checkout.run("run").returncode == 0
        assert checkout.installs()[0] == "virtualenv --quiet --python python3 .venv"

    @pytest.mark.parametrize("arguments", [["run"], ["--apt", "run"]])
    def test_else_one_line_says_what_to_install(self, checkout: Checkout, arguments: list[str]) -> None:
        checkout.program("apt-get", APT)
        refused = checkout.run(*arguments)
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert "install python3-venv (Debian: apt install python3-venv), uv or virtualenv" in refused.stderr
        assert checkout.installs() == []
        assert not (checkout.folder / ".venv").exists()

    @pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="apt is Debian's")
    @pytest.mark.parametrize(("arguments", "calls"), [(["--apt", "run"], True), (["test"], False)])
    def test_root_on_debian_gets_it_by_apt_for_run_only(
        self, checkout: Checkout, arguments: list[str], calls: bool
    ) -> None:
        checkout.program("id", "#!/bin/sh\necho 0\n")
        checkout.program("apt-get", APT)
        ended = checkout.run(*arguments)
        assert (ended.returncode == 0) is calls
        assert ("installing Debian's python3-venv with apt" in ended.stdout) is calls
        assert any(line.startswith("apt-get install") for line in checkout.installs()) is calls
