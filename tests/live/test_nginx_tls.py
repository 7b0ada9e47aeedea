"""TLS at the edge: modern, beside the plain port, and with certificates that change while it runs."""

import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from local.ports import HOST, free_ports
from tests.support.certificates import authority
from tests.support.edge import Edge
from tests.support.pods import Pod
from tests.support.waiting import wait_until


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder as Kubernetes mounts a Secret: the files are links through a link that is exchanged as a whole."""
    folder = tmp_path / "tls"
    folder.mkdir()
    put(folder, "first")
    for name in ("tls.crt", "tls.key"):
        (folder / name).symlink_to(Path("..data") / name)
    return folder


def put(folder: Path, version: str) -> bytes:
    """Makes a new certificate the one of the folder; returns it."""
    certificate = authority(folder / version)
    certificate.rename(folder / version / "tls.crt")
    (folder / version / "key.pem").rename(folder / version / "tls.key")
    (folder / "..new").symlink_to(version)
    os.replace(folder / "..new", folder / "..data")
    return ssl.PEM_cert_to_DER_cert((folder / version / "tls.crt").read_text())


@pytest.fixture
def edge(certificates: Path, tmp_path: Path) -> Iterator[tuple[Edge, int]]:
    """An edge and its TLS port."""
    public, internal, port = free_ports(3)
    with (
        Pod(tmp_path, HOST, (public, internal), standin=True) as pod,
        Edge(
            tmp_path / "edge", GATEWAYS=pod.public, TLS_PORT=str(port), CERTIFICATES=str(certificates), WORKERS="1"
        ) as edge,
    ):
        yield edge, port


def client() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    with socket.create_connection((HOST, port), 5) as connection:
        wrapped = context.wrap_socket(connection, session=session)
        wrapped.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while wrapped.recv(65_536):  # tickets of TLS 1.3 come behind the handshake
            pass
        return wrapped


async def test_upgrades_on_both_ports(edge: tuple[Edge, int]) -> None:
    plain, port = edge
    async with connect(f"wss://{HOST}:{port}/ws", ssl=client(), proxy=None) as secure:
        assert '"x-forwarded-proto", "https"' in str(await secure.recv())
    async with connect(f"{plain.ws_url}/ws", proxy=None) as socket:
        assert '"x-forwarded-proto", "http"' in str(await socket.recv())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions_from_1_2_on_http_1_1_and_tickets(edge: tuple[Edge, int]) -> None:
    _, port = edge
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client()
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        first = handshake(port, context)
        assert first.selected_alpn_protocol() == "http/1.1"
        cipher = first.cipher()
        assert cipher is not None
        assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]
        assert first.session is not None
        assert first.session.has_ticket
        assert handshake(port, context, first.session).session_reused
    old = client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(port, old)


def test_a_new_certificate_is_taken_without_a_reload(edge: tuple[Edge, int], certificates: Path) -> None:
    _, port = edge
    before = seen(port)
    for version in ("second", "third"):
        new = put(certificates, version)
        wait_until(lambda new=new: seen(port) == new, "the new certificate is shown")
        assert new != before
    shutil.rmtree(certificates / "first")
    assert seen(port) == new


def seen(port: int) -> bytes | None:
    return handshake(port, client()).getpeercert(binary_form=True)


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_a_missing_file_is_one_line_at_the_start(certificates: Path, tmp_path: Path, missing: str) -> None:
    (certificates / missing).unlink()
    edge = Edge(tmp_path / "edge", GATEWAYS="127.0.0.1:1", TLS_PORT="8443", CERTIFICATES=str(certificates))
    with pytest.raises(AssertionError), edge:
        pass
    assert edge.log == f"edge: CARILLON_EDGE_TLS_PORT is set, and {certificates}/{missing} cannot be read or is empty"


def test_files_that_do_not_belong_together_are_one_line_at_the_start(certificates: Path, tmp_path: Path) -> None:
    """A handshake says nothing about them: errors about single clients are off."""
    put(certificates, "other")
    shutil.copy(certificates / "first" / "tls.key", certificates / "other" / "tls.key")
    assert "key values mismatch" in refused(certificates, tmp_path)


def test_a_file_that_is_no_certificate_is_one_line_at_the_start(certificates: Path, tmp_path: Path) -> None:
    (certificates / "first" / "tls.crt").write_text("no certificate\n")
    assert f'cannot load certificate "{certificates}/tls.crt"' in refused(certificates, tmp_path)


def refused(certificates: Path, tmp_path: Path) -> str:
    """What an edge with these says before it ends."""
    [port] = free_ports(1)
    settings = {"GATEWAYS": "127.0.0.1:1", "CONNECTIONS": "1024", "CERTIFICATES": str(certificates)}
    edge = Edge(tmp_path / "edge", TLS_PORT=str(port), **settings)
    with pytest.raises(AssertionError), edge:
        pass
    [line] = edge.log.splitlines()
    return line
