"""`python -m app smoke`, which `helm test` runs: on a whole stack it works, on anything less it says what is wrong."""

import os
import re
import threading
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from app.cli import main
from local.ports import HOST
from tests.support import parts
from tests.support.edge import Edge
from tests.support.manifests import rendered
from tests.support.pod_settings import environment, mount
from tests.support.stack import API_KEY, SECRET, Stack


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the test's pod has them: in files."""
    for name in [name for name in os.environ if name.startswith("CARILLON_")]:
        monkeypatch.delenv(name)
    for name, value in (("TOKEN_HMAC_SECRET", SECRET), ("API_KEYS", API_KEY)):
        path = tmp_path / name
        path.write_text(value)
        monkeypatch.setenv(f"CARILLON_{name}_FILE", str(path))


def smoke(stack: Stack, *options: str, url: str = "", api: str = "") -> int:
    return main(["smoke", url or f"{stack.ws_url}/ws", "--api", api or stack.url, "--timeout", "20", *options])


def test_a_publication_reaches_clients_of_two_pods(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke(stack) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"\d+ connections to pod-1 and pod-2 had the publication within \d+ ms\n", said)


def test_it_meets_several_where_the_edge_places_by_what_clients_say(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateways = ",".join(f"{HOST}:{pod.public_port}" for pod in stack.pods)
    with Edge(tmp_path / "edge", GATEWAYS=gateways, BALANCE="user") as edge:
        assert smoke(stack, url=f"{edge.ws_url}/ws") == 0
    assert "connections to pod-1 and pod-2 had" in capsys.readouterr().out


def test_too_few_pods_are_an_error_when_the_time_is_over(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Not at once: the DNS may name the others a little later."""
    assert smoke(stack, "--pods", "3", "--timeout", "5") == 1
    said = capsys.readouterr().err
    assert re.search(r"^carillon: after 5 s: \S+: 30 connections met pod-1 and pod-2, not 3 pods$", said)


def test_nobody_there_is_an_error_when_the_time_is_over(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke(stack, "--timeout", "2", url="ws://127.0.0.1:1/ws") == 1
    assert re.search(r"^carillon: after 2 s: ws://127.0.0.1:1/ws: .*refused|Connect", capsys.readouterr().err)


@pytest.mark.parametrize("says", ["hello", b"\xff", "[1]", '{"no": "type"}'])
def test_something_else_there_is_an_error(says: str | bytes, capsys: pytest.CaptureFixture[str]) -> None:
    def another(connection: ServerConnection) -> None:
        connection.send(says)
        connection.recv()

    with serve(another, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
        try:
            assert main(["smoke", url, "--timeout", "10"]) == 1
        finally:
            server.shutdown()
            thread.join()
    assert capsys.readouterr().err == f"carillon: {url}: who answers there is no gateway\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [("TOKEN_HMAC_SECRET", "goodbye: 3500 not signed by a key"), ("API_KEYS", "answered 401")],
)
def test_a_wrong_credential_is_an_error_at_once(
    stack: Stack, name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("another-one-of-thirty-two-letters")
    assert smoke(stack) == 1
    assert said in capsys.readouterr().err


def test_a_room_that_is_none_is_an_error(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke(stack, "--room", "nonesuch:room") == 1
    assert capsys.readouterr().err == "carillon: subscribe: error 102, the room's prefix names no namespace\n"


def test_an_address_that_is_none_is_an_error(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke(stack, url="http://example") == 1
    assert "http://example" in capsys.readouterr().err


def test_helm_test_runs_it_so(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pod's own arguments, environment and files; only the addresses and secrets are those of this stack."""
    parts.require("helm")
    chart = rendered("chart minimal")
    pod = next(pod for pod in chart.pods() if pod.component == "test")
    (container,) = pod.containers
    mount(chart, pod, container, tmp_path)
    for name, value in (("token-hmac-secret", SECRET), ("api-keys", API_KEY)):
        (tmp_path / "etc/carillon/secrets" / name).write_text(value)
    for name, value in environment(chart, container).items():
        monkeypatch.setenv(name, value.replace("/etc/carillon", f"{tmp_path}/etc/carillon"))
    for name in ("WEB_CONCURRENCY", "CARILLON_TOKEN_HMAC_SECRET", "CARILLON_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    program, arguments = container["args"][:3], " ".join(container["args"][3:])
    here = arguments.replace("ws://carillon-edge", stack.ws_url).replace("http://carillon-gateway:9000", stack.url)
    assert program == ["python", "-m", "app"]
    assert main(here.split()) == 0, capsys.readouterr().err
