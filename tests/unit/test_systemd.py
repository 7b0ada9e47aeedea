"""The units start what is there, give a drain its time, and let a gateway do nothing that it need not."""

import re
import subprocess
from pathlib import Path

import pytest

from app.hosting import check_timeouts, graceful_timeout
from app.settings import Settings
from local.stack import ROOT
from tests.support import parts
from tests.support.systemd_unit import INSTALLED, values

FOLDER = ROOT / "systemd"
GATEWAY, EDGE = FOLDER / "carillon-gateway@.service", FOLDER / "carillon-edge.service"
UNITS = [pytest.param(path, id=path.name) for path in (GATEWAY, EDGE)]
PAGE = ROOT / "docs" / "deploy-systemd.md"


def environment(unit: Path) -> dict[str, str]:
    return dict(value.split("=", 1) for value in values(unit, "Environment"))


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_it(unit: Path, tmp_path: Path) -> None:
    """With this repository in the place where the page installs it."""
    analyze = parts.require("systemd-analyze")
    place = tmp_path / "current"
    (place / "venv" / "bin").mkdir(parents=True)
    (place / "nginx").symlink_to(ROOT / "nginx")
    (place / "venv" / "bin" / "python").symlink_to("/bin/sh")
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(unit.read_text("utf-8").replace(INSTALLED, str(place)), "utf-8")
    ran = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(("unit", "most"), [(GATEWAY, 15), (EDGE, 18)], ids=["gateway", "edge"])
def test_little_is_open_to_whoever_breaks_in(unit: Path, most: int) -> None:
    """systemd's own measure, in tenths: 100 is a service that may do all."""
    analyze = parts.require("systemd-analyze")
    ran = subprocess.run(
        [analyze, "security", "--no-pager", "--offline=true", f"--threshold={most}", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_gateway_gets_the_time_that_its_drain_takes() -> None:
    """N5: and it is told, so that it refuses to start where somebody's settings do not fit."""
    told = environment(GATEWAY)
    assert values(GATEWAY, "TimeoutStopSec") == [told["CARILLON_TERMINATION_GRACE"]]
    settings = Settings(
        drain_delay=float(told["CARILLON_DRAIN_DELAY"]),
        drain_timeout=float(told["CARILLON_DRAIN_TIMEOUT"]),
        termination_grace=float(told["CARILLON_TERMINATION_GRACE"]),
    )
    check_timeouts(settings, graceful_timeout(settings))
    assert settings.termination_grace == settings.drain_delay + settings.drain_timeout + 15


def test_an_edge_gets_the_time_that_its_drain_takes() -> None:
    told = environment(EDGE)
    least = int(told["CARILLON_EDGE_DRAIN_DELAY"]) + int(told["CARILLON_EDGE_DRAIN_TIMEOUT"])
    assert values(EDGE, "TimeoutStopSec") == [str(least + 15)]
    assert values(EDGE, "TimeoutStartSec") == [str(least + 15)], "ExecReload is bound by it, and says goodbye as well"


def test_one_signal_to_the_master_begins_the_drain() -> None:
    """To all of them it would end the processes of offload() before the sessions that wait for them (N1)."""
    assert values(GATEWAY, "KillSignal") == ["SIGTERM"]
    assert values(GATEWAY, "KillMode") == ["mixed"]
    assert values(EDGE, "KillSignal") == ["SIGQUIT"]


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_but_a_gateways_wrong_settings_ends_it_for_good(unit: Path) -> None:
    """Nginx ends with the same status whether its settings are wrong or a port is taken for a moment."""
    assert values(unit, "Restart") == ["always"]
    assert values(unit, "RestartPreventExitStatus") == (["2"] if unit == GATEWAY else [])
    assert values(unit, "StartLimitIntervalSec") == ["0"]
    assert values(unit, "OOMPolicy") == ["continue"]


@pytest.mark.parametrize("unit", UNITS)
def test_it_knows_every_setting_that_it_sets(unit: Path) -> None:
    known = {f"CARILLON_{name.upper()}" for name in Settings.model_fields}
    known |= {"CARILLON_TOKEN_HMAC_SECRET_FILE", "CARILLON_API_KEYS_FILE"}
    edge = (ROOT / "nginx" / "settings.awk").read_text("utf-8")
    known |= {f"CARILLON_EDGE_{name}" for name in re.findall(r'setting\("(\w+)"', edge)}
    assert {name for name in environment(unit) if name.startswith("CARILLON_")} <= known


def test_secrets_come_as_credentials() -> None:
    credentials = dict(value.split(":", 1) for value in values(GATEWAY, "LoadCredential"))
    told = environment(GATEWAY)
    for name in ("token-hmac-secret", "api-keys"):
        assert credentials[name] == f"/etc/carillon/secrets/{name}"
        assert f"%d/{name}" in told.values()


def test_the_page_makes_every_file_that_the_units_read() -> None:
    page = PAGE.read_text("utf-8")
    for unit in (GATEWAY, EDGE):
        for file in [*values(unit, "EnvironmentFile"), *(v.split(":")[1] for v in values(unit, "LoadCredential"))]:
            assert file.replace("%i", "1") in page, file
    assert INSTALLED in page
