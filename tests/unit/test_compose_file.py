"""compose.yaml, as far as it can be checked without an engine; tests/deploy starts it."""

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.hosting import check_timeouts, graceful_timeout
from app.settings import Namespace, Settings, load
from app.settings_sources import refuse_unknown_names

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def default(text: str) -> str:
    """What compose makes of a value where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    for port in service.get("ports", []):
        assert default(port).startswith("127.0.0.1:")


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_is_a_variable_and_none_moves_by_itself(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-[^}]+\}", image)
    if "build" not in SERVICES[name]:
        assert re.search(r":v?\d+\.\d+[\w.-]*$", default(image)), "a release, not `latest`"


def test_base_images_are_those_of_the_dockerfile() -> None:
    defaults = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    named = {
        name: default(image)
        for one in SERVICES.values()
        for name, image in one.get("build", {}).get("args", {}).items()
    }
    assert named == defaults


def test_the_gateway_gets_settings_that_there_are_and_time_for_its_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = SERVICES["gateway"]
    environment = {name: default(value) for name, value in gateway["environment"].items()}
    refuse_unknown_names(environment, Settings.model_fields, Namespace.model_fields)
    for name, value in environment.items():
        if not name.endswith("_FILE"):
            monkeypatch.setenv(name, value)
    settings = load()
    check_timeouts(settings, graceful_timeout(settings))
    assert default(gateway["stop_grace_period"]) == f"{settings.termination_grace:g}s"


def test_the_edge_gets_settings_that_there_are() -> None:
    table = subprocess.run(
        ("sh", ROOT / "nginx/render.sh", "--table"), capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert {name.removeprefix("CARILLON_EDGE_") for name in SERVICES["edge"]["environment"]} <= known


def test_secrets_are_files_and_have_no_default() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert re.fullmatch(rf"\$\{{CARILLON_SECRETS:\?[^}}]+\}}/{name}", secret["file"])
    assert not re.search(r"(SECRET|KEYS|PASSWORD)(?!_FILE|__FILE|S:)\w*:", TEXT)


class TestMakingSecrets:
    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        (tmp_path / "images").mkdir()
        shutil.copy(ROOT / "images/secrets.sh", tmp_path / "images")
        return tmp_path

    @staticmethod
    def make(checkout: Path) -> dict[str, str]:
        subprocess.run(("sh", checkout / "images/secrets.sh"), capture_output=True, check=True)
        return {file.name: file.read_text() for file in (checkout / "secrets").iterdir()}

    def test_makes_what_compose_asks_for_and_the_gateway_takes(
        self, checkout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = self.make(checkout)
        assert made.keys() == COMPOSE["secrets"].keys()
        assert (checkout / ".env").read_text() == "CARILLON_SECRETS=./secrets\n"
        monkeypatch.setenv("CARILLON_TOKEN_HMAC_SECRET_FILE", str(checkout / "secrets/token-hmac-secret"))
        monkeypatch.setenv("CARILLON_API_KEYS_FILE", str(checkout / "secrets/api-keys"))
        assert load().token_hmac_secret[0].get_secret_value() == made["token-hmac-secret"]
        assert len(set(made.values())) == len(made)

    def test_only_their_owner_finds_them_and_containers_can_read_them(self, checkout: Path) -> None:
        self.make(checkout)
        assert stat.S_IMODE((checkout / "secrets").stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in (checkout / "secrets").iterdir()} == {0o644}

    @pytest.mark.parametrize("there", ["PORT=9999\n", "PORT=9999"])
    def test_leaves_what_is_there(self, checkout: Path, there: str) -> None:
        (checkout / ".env").write_text(there)
        first = self.make(checkout)
        assert self.make(checkout) == first
        assert (checkout / ".env").read_text() == "PORT=9999\nCARILLON_SECRETS=./secrets\n"
