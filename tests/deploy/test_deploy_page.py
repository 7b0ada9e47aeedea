"""docs/deploy.md says what is so: its values render, its commands have those options, its error messages are given."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from tests.support import parts
from tests.support.cluster import CHART
from tests.support.commands import run

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text("utf-8")
HELM_TEXT = re.compile(r"Helm: `([^`]+)`")
POD_TEXT = re.compile(r"`carillon: ([^`]+)`")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


LEAST, *FURTHER = blocks("yaml")
COMMANDS = [
    line
    for block in blocks("sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(("helm", "kub"))
]


@pytest.fixture(scope="module")
def helm() -> str:
    return parts.require("helm")


class TestValues:
    def test_the_least_are_enough(self, helm: str, tmp_path: Path) -> None:
        assert "kind: Deployment" in rendered(helm, tmp_path, LEAST)

    @pytest.mark.parametrize("further", FURTHER, ids=lambda text: " ".join(text.split())[:40])
    def test_the_others_go_with_them(self, helm: str, tmp_path: Path, further: str) -> None:
        without = rendered(helm, tmp_path, LEAST, "--set=valkey.enabled=false")
        assert rendered(helm, tmp_path, LEAST, "--set=valkey.enabled=false", further=further) != without


def rendered(helm: str, folder: Path, values: str, *options: str, further: str = "") -> str:
    (folder / "values.yaml").write_text(values)
    (folder / "further.yaml").write_text(further)
    files = [f"--values={folder}/values.yaml", f"--values={folder}/further.yaml"]
    return run([helm, "template", "carillon", str(CHART), *files, *options])


class TestCommands:
    @pytest.mark.parametrize("line", COMMANDS)
    def test_have_these_options(self, line: str) -> None:
        words = shlex.split(line.partition(" -- ")[0])
        program = parts.require(words[0])
        verb = [word for word in words[1:] if not word.startswith("-") and word != "carillon"]
        depth = 2 if verb[0] in ("create", "rollout") else 1
        usage = run([program, *verb[: depth if verb[:2] != ["create", "secret"] else 3], "--help"])
        usage += run([program, "options"]) if words[0] == "kubectl" else ""
        for option in (word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)):
            assert re.search(rf"(?<![\w-]){option}\b", usage), f"{option} of {line}"

    def test_make_a_secret_with_the_keys_that_the_chart_names(self, helm: str) -> None:
        (line,) = (line for line in COMMANDS if "create secret" in line)
        values = run([helm, "show", "values", str(CHART)])
        for key in re.findall(r"--from-literal=([a-z-]+)=", line):
            assert f": {key}\n" in values


SETTINGS = {
    "no number": {"CARILLON_DRAIN_TIMEOUT": "soon"},
    "no such setting": {"CARILLON_MAX_CONECTIONS": "5"},
    "a secret that is too short": {"CARILLON_TOKEN_HMAC_SECRET": "short"},
    "no URL of Redis": {"CARILLON_REDIS_URL": "redis:6379"},
    "too little grace": {
        "CARILLON_TERMINATION_GRACE": "30",
        "CARILLON_DRAIN_DELAY": "5",
        "CARILLON_DRAIN_TIMEOUT": "30",
    },
}
FILES = {
    "no such option": ("CARILLON_CONFIG", "carillon.toml", "[namespaces.chat]\nhistroy_size = 5\n"),
    "an empty secret": ("CARILLON_TOKEN_HMAC_SECRET_FILE", "secrets/token-hmac-secret", ""),
}


class TestWhatAPodSays:
    @pytest.fixture(autouse=True)
    def env(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        for name in os.environ:
            if name.startswith("CARILLON_"):
                monkeypatch.delenv(name)
        return monkeypatch

    @pytest.mark.parametrize("environ", SETTINGS.values(), ids=SETTINGS)
    def test_of_settings(
        self, env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environ: dict[str, str]
    ) -> None:
        for name, value in environ.items():
            env.setenv(name, value)
        assert main(["serve"]) == 2
        is_on_the_page(capsys.readouterr().err)

    @pytest.mark.parametrize(("name", "path", "content"), FILES.values(), ids=FILES)
    def test_of_files(
        self,
        env: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        name: str,
        path: str,
        content: str,
    ) -> None:
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        env.setenv(name, str(file))
        assert main(["serve"]) == 2
        is_on_the_page(capsys.readouterr().err.replace(str(tmp_path), "/etc/carillon"))

    def test_of_options_that_contradict_each_other(
        self, env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        env.setenv("CARILLON_NAMESPACES__CHAT__HISTORY_SIZE", "5")
        env.setenv("CARILLON_NAMESPACES__CHAT__CONFLATE_MS", "5")
        assert main(["serve"]) == 2
        assert capsys.readouterr().err.rpartition("history_size > 0")[2].strip() in PAGE

    def test_of_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            environ = {"CARILLON_BIND_HOST": "127.0.0.1", "CARILLON_PUBLIC_PORT": port}
            ended = subprocess.run(
                [sys.executable, "-m", "app", "serve"],
                env=os.environ | environ,
                capture_output=True,
                text=True,
                check=False,
            )
        is_on_the_page(ended.stderr.replace(port, "8000"))


def is_on_the_page(said: str) -> None:
    """The page may leave the end of a line out."""
    (line,) = said.splitlines()
    told = line.removeprefix("carillon: ")
    assert any(told.startswith(text.removesuffix("...")) for text in POD_TEXT.findall(PAGE)), f"not on the page: {line}"


class TestWhatHelmSays:
    @pytest.mark.parametrize(
        "options",
        [
            ("gateway.replicas=two",),
            ("gateway.settings.drain_timout=3",),
            ("gateway.namespaces.chat.histroy_size=5",),
            ("secrets.existingSecret=", "valkey.enabled=false"),
            ("gateway.terminationGracePeriodSeconds=30",),
            ("autoscaling.enabled=true", "keda.enabled=true", "keda.serverAddress=http://p"),
        ],
    )
    def test_is_on_the_page(self, helm: str, tmp_path: Path, options: tuple[str, ...]) -> None:
        with pytest.raises(AssertionError) as refused:
            rendered(helm, tmp_path, LEAST, *(f"--set={option}" for option in options))
        assert any(text in str(refused.value) for text in HELM_TEXT.findall(PAGE)), refused.value
