"""A gateway runs from its unit: with that environment and nothing else, and ends as systemd wants it."""

import asyncio
import sys
from pathlib import Path

import httpx

from local.stack import ROOT
from tests.support.client import Client
from tests.support.hosted import free_port
from tests.support.systemd_unit import INSTALLED, Service
from tests.support.waiting import until

UNIT = ROOT / "systemd" / "carillon-gateway@.service"
KEY = "k" * 32


def gateway(folder: Path, **settings: str) -> tuple[Service, int, int]:
    """The first gateway of docs/deploy-systemd.md, but with a broker in memory; and its two ports."""
    public, internal = free_port(), free_port()
    common = {"CARILLON_BIND_HOST": "127.0.0.1", "WEB_CONCURRENCY": "1", **settings}
    files = {
        "/etc/carillon/gateway.env": "\n".join(f"{name}={value}" for name, value in common.items()),
        "/etc/carillon/gateway-1.env": f"CARILLON_PUBLIC_PORT={public}\nCARILLON_INTERNAL_PORT={internal}",
    }
    secrets = {"token-hmac-secret": "s" * 32 + "\n", "api-keys": KEY + "\n"}
    program = {f"{INSTALLED}/venv/bin/python": sys.executable}
    return Service(UNIT, "1", folder, files, secrets, program), public, internal


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:  # gunicorn's master says that it runs before its workers listen
        return False


async def test_it_says_when_it_runs_uses_the_credentials_and_drains_in_time(tmp_path: Path) -> None:
    service, public, internal = gateway(tmp_path)
    with service:
        service.started()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{internal}", trust_env=False) as http:
            await until(lambda: is_ready(internal), "the gateway is ready", timeout=30)
            body = {"room": "chat:x", "data": 1}
            assert (await http.post("/api/publish", json=body)).status_code == 401
            assert (await http.post("/api/publish", json=body, headers={"X-API-Key": KEY})).status_code == 200
        assert [path.suffix for path in service.runtime_files()].count(".db") > 0  # metrics, and they go with the unit
        async with Client(f"ws://127.0.0.1:{public}") as client:
            assert client.welcome["node"].startswith("host-1")
            assert await asyncio.to_thread(service.stop) == 0
            await until(lambda: client.close_code is not None, "the close")
            assert client.close_code == 3001


def test_a_drain_that_does_not_fit_is_refused_with_the_status_that_is_not_tried_again(tmp_path: Path) -> None:
    service, _, _ = gateway(tmp_path, CARILLON_DRAIN_TIMEOUT="60")
    with service:
        assert service.status() == 2
        assert "carillon: CARILLON_TERMINATION_GRACE: 45 s cut the drain off" in service.log()
