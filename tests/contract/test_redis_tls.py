"""The broker over TLS, with a certificate authority of its own (A5). Valkey's wheel has no TLS: Debian's Redis has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support import parts
from tests.support.brokers import ENVELOPE, HISTORY, hearing, settings_for, started
from tests.support.certificates import authority, signed_by_an_authority, strict_by_default
from tests.support.valkey import Server, server
from tests.support.waiting import until


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed_by_an_authority(tmp_path_factory.mktemp("tls") / "right")


@pytest.fixture(scope="module")
def guarded(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A server, and its port for TLS."""
    program = parts.require("redis-server")
    certificate = str(ca.with_name("server.pem"))
    plain = server(tmp_path_factory.mktemp("redis"), program=program)
    secret = server(
        tmp_path_factory.mktemp("redis-tls"),
        *(
            "--tls-port",
            str(plain.port),
            "--tls-cert-file",
            certificate,
            "--tls-key-file",
            str(ca.with_name("key.pem")),
        ),
        *("--tls-ca-cert-file", str(ca), "--tls-auth-clients", "no"),
        program=program,
    )
    with secret as running:
        yield running, plain.port


async def test_it_works_over_tls(guarded: tuple[Server, int], ca: Path) -> None:
    async with hearing(settings_for(f"rediss://127.0.0.1:{guarded[1]}?ca={ca}")) as (broker, sink):
        await broker.subscribe("room")
        large = ENVELOPE + b"x" * 1_000_000
        assert (await broker.publish("room", large, history=HISTORY)).offset == 1
        await until(lambda: sink.publications, "heard")
        assert sink.heard("room") == [large]


async def test_certificates_without_key_identifiers_are_enough(
    guarded: tuple[Server, int], ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has such a one, as openssl makes them; from 3.13 on Python refuses them by default."""
    strict_by_default(monkeypatch)
    async with started(settings_for(f"rediss://127.0.0.1:{guarded[1]}?ca={ca}")) as (broker, _):
        await until(lambda: broker.connected, "it is connected")


async def test_a_server_of_another_authority_is_refused(guarded: tuple[Server, int], tmp_path: Path) -> None:
    other = authority(tmp_path / "other")
    with capture_logs() as logs:
        async with started(settings_for(f"rediss://:secret@127.0.0.1:{guarded[1]}?ca={other}")) as (broker, _):
            await until(lambda: logs, "a log line")
            assert not broker.connected
    assert logs[0]["event"] == "broker.unreachable"
    assert "certificate verify failed" in logs[0]["reason"].lower()
    assert "secret" not in repr(logs)
