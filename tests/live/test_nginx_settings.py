"""What the edge's settings do: a real Nginx, started as images do it, before stand-in pods that say what they got."""

import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from local.ports import HOST, free_ports
from tests.support import parts
from tests.support.edge import Answering, Edge, Fainting
from tests.support.pods import Pod

ELSEWHERE = "127.0.0.2"


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Pod]]:
    folder = tmp_path_factory.mktemp("pods")
    ports = free_ports(4)
    with ExitStack() as running:
        yield [
            running.enter_context(Pod(folder / name, HOST, pair, standin=True))
            for name, pair in (("one", (ports[0], ports[1])), ("two", (ports[2], ports[3])))
        ]


@pytest.fixture
def gateways(pods: Sequence[Pod]) -> Iterator[dict[str, str]]:
    """The settings that name them."""
    yield {
        "GATEWAYS": ",".join(pod.public for pod in pods),
        "INTERNAL_GATEWAYS": ",".join(pod.internal for pod in pods),
    }
    for pod in pods:
        answer_with(pod, 200)


def answer_with(pod: Pod, status: int) -> None:
    httpx.post(f"http://{pod.internal}/standin/{status}", trust_env=False)


def told(edge: Edge, path: str = "/", **headers: str) -> dict[str, Any]:
    """What the pod says about a request."""
    answer = edge.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def headers_of(answer: dict[str, Any]) -> dict[str, str]:
    return dict(answer["headers"])


@pytest.fixture(scope="module")
def by_user(pods: Sequence[Pod], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with Edge(tmp_path_factory.mktemp("user"), BALANCE="user", GATEWAYS=",".join(pod.public for pod in pods)) as edge:
        yield edge


class TestBalance:
    def test_the_same_key_leads_to_the_same_pod_however_it_is_given(self, by_user: Edge) -> None:
        homes = {user: told(by_user, f"/ws?affinity={user}")["pod"] for user in map(str, range(40))}
        assert min(Counter(homes.values()).values()) >= 8
        for user, home in homes.items():
            assert told(by_user, "/ws", X_Carillon_Affinity=user)["pod"] == home

    def test_without_a_key_it_is_the_address(self, by_user: Edge) -> None:
        assert len({told(by_user, "/ws")["pod"] for _ in range(10)}) == 1

    def test_a_pod_that_refuses_passes_its_users_on(self, by_user: Edge, pods: Sequence[Pod]) -> None:
        home = told(by_user, "/ws?affinity=ann")["pod"]
        answer_with(next(pod for pod in pods if pod.port == home), 503)
        assert told(by_user, "/ws?affinity=ann")["pod"] != home
        for pod in pods:
            answer_with(pod, 200)
        assert told(by_user, "/ws?affinity=ann")["pod"] == home

    def test_no_cookie_is_set(self, by_user: Edge) -> None:
        assert "Set-Cookie" not in by_user.get("/ws").headers

    def test_by_address(self, gateways: dict[str, str], tmp_path: Path) -> None:
        with Edge(tmp_path / "edge", BALANCE="address", **gateways) as edge:
            assert len({told(edge)["pod"] for _ in range(10)}) == 1
            assert "Set-Cookie" not in edge.get("/").headers


def test_a_fleet_of_which_half_drains_loses_nobody(tmp_path: Path) -> None:
    """Pods that drain are soon the emptiest, and so whom Nginx would rather ask; N4."""
    with ExitStack() as running:
        draining = [running.enter_context(Answering(503)) for _ in range(4)]
        serving = [running.enter_context(Answering(200)) for _ in range(4)]
        edge = running.enter_context(
            Edge(tmp_path / "edge", GATEWAYS=",".join(f"{HOST}:{pod.port}" for pod in [*draining, *serving]))
        )
        for _ in range(12):
            running.enter_context(httpx.stream("GET", f"{edge.url}/ws/held", trust_env=False))
        assert [edge.get("/ws").status_code for _ in range(100)] == [200] * 100


@pytest.fixture(params=["this Nginx, told that it is 1.22.1", "an older Nginx"])
def older(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "an older Nginx":
        return {"NGINX": parts.require("old-nginx")}
    return {"NGINX_VERSION": "1.22.1"}


class TestASecondChance:
    """A change of the peers by DNS ends all tries, and a single peer has only one."""

    @pytest.mark.parametrize("path", ["/ws", "/ws/room", "/sse"])
    def test_who_meets_no_answer_is_asked_about_once_more(self, tmp_path: Path, path: str) -> None:
        with Fainting(1) as pod, Edge(tmp_path / "edge", GATEWAYS=f"{HOST}:{pod.port}") as edge:
            assert edge.get(path).status_code == 200
            assert pod.methods == ["GET", "GET"]

    def test_and_not_again(self, tmp_path: Path) -> None:
        with Fainting(9) as pod, Edge(tmp_path / "edge", GATEWAYS=f"{HOST}:{pod.port}") as edge:
            assert edge.get("/ws").status_code == 502
            assert pod.methods == ["GET", "GET"]

    def test_what_is_not_idempotent_is_not_sent_again(self, tmp_path: Path) -> None:
        """N4: it may have been carried out."""
        with Fainting(1) as pod, Edge(tmp_path / "edge", GATEWAYS=f"{HOST}:{pod.port}") as edge:
            answer = httpx.post(f"{edge.url}/emulation", content=b"{}", trust_env=False)
            assert answer.status_code == 502
            assert pod.methods == ["POST"]


class TestWithoutSticky:
    """Before 1.29.6: a mark in the same cookie, and `hash`."""

    def test_clients_are_spread_and_15_of_15_come_back(
        self, gateways: dict[str, str], tmp_path: Path, older: dict[str, str]
    ) -> None:
        with Edge(tmp_path / "edge", **gateways, **older) as edge:
            assert "sticky" not in (edge.run / "nginx.conf").read_text().split("upstream gateway")[1].split("}")[0]
            seen = Counter[int]()
            for _ in range(40):
                answer = edge.get("/ws")
                seen[answer.json()["pod"]] += 1
            assert min(seen.values()) >= 8
            cookie = SimpleCookie(answer.headers["Set-Cookie"])["carillon_edge"]
            assert cookie["httponly"]
            assert (cookie["path"], cookie["samesite"]) == ("/", "lax")
            for _ in range(15):
                again = edge.get("/ws", headers={"Cookie": f"carillon_edge={cookie.value}"})
                assert again.json()["pod"] == answer.json()["pod"]
                assert "Set-Cookie" not in again.headers

    def test_a_mark_is_set_with_an_upgrade_and_none_is_taken_from_a_client(
        self, gateways: dict[str, str], tmp_path: Path, older: dict[str, str]
    ) -> None:
        with Edge(tmp_path / "edge", **gateways, **older) as edge:
            head = upgrade(edge.port, "Cookie: carillon_edge=mine\r\n")
            assert head.startswith("HTTP/1.1 101")
            assert "set-cookie: carillon_edge=" in head.lower()


def upgrade(port: int, headers: str = "", before: str = "", source: str = HOST) -> str:
    """The head of the answer to an upgrade, after whatever else is sent first; empty: the connection was closed."""
    with socket.create_connection((HOST, port), 5, (source, 0)) as connection:
        request = (
            f"{before}GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
        connection.sendall(request.encode())
        return connection.recv(65_536).decode("latin-1").partition("\r\n\r\n")[0]


class TestWhoTheClientIs:
    PROXY = f"PROXY TCP4 203.0.113.9 {HOST} 4711 80\r\n"

    def address(self, edge: Edge, before: str, source: str = HOST) -> str:
        return self.header(edge, before, source, "x-forwarded-for")

    def header(self, edge: Edge, before: str, source: str, name: str) -> str:
        """As the gateway gets it."""
        claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
        with socket.create_connection((HOST, edge.port), 5, (source, 0)) as connection:
            connection.sendall(f"{before}GET / HTTP/1.1\r\nHost: x\r\n{claims}Connection: close\r\n\r\n".encode())
            text = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        return text.partition(f'"{name}", "')[2].partition('"')[0]

    def test_the_proxy_header_of_a_trusted_balancer_is_believed_and_of_nobody_else(
        self, gateways: dict[str, str], tmp_path: Path
    ) -> None:
        with Edge(tmp_path / "edge", PROXY_PROTOCOL="1", TRUSTED=ELSEWHERE, **gateways) as edge:
            assert self.address(edge, self.PROXY, ELSEWHERE) == "203.0.113.9"
            assert self.address(edge, self.PROXY, HOST) == HOST
            assert self.address(edge, "", ELSEWHERE) == "", "who sends no PROXY header is cut"
            assert [entry["address"] for entry in edge.entries] == ["203.0.113.9", HOST]
            assert edge.status("/healthz").status_code == 200, "probes speak no PROXY protocol"

    def test_a_client_behind_a_proxy_header_cannot_say_that_it_came_by_tls(
        self, gateways: dict[str, str], tmp_path: Path
    ) -> None:
        """Its balancer reads no HTTP: what stands there is the client's own word."""
        with Edge(tmp_path / "edge", PROXY_PROTOCOL="1", TRUSTED=ELSEWHERE, **gateways) as edge:
            assert self.header(edge, self.PROXY, ELSEWHERE, "x-forwarded-proto") == "http"

    def test_the_scheme_is_what_a_trusted_balancer_says(self, gateways: dict[str, str], tmp_path: Path) -> None:
        with Edge(tmp_path / "edge", TRUSTED=f"{ELSEWHERE},10.0.0.0/8", **gateways) as edge:
            transport = httpx.HTTPTransport(local_address=ELSEWHERE)
            with httpx.Client(base_url=edge.url, transport=transport, trust_env=False) as balancer:
                said = balancer.get("/", headers={"X-Forwarded-Proto": "https"}).json()
                nonsense = balancer.get("/", headers={"X-Forwarded-Proto": "gopher"}).json()
            assert headers_of(said)["x-forwarded-proto"] == "https"
            assert headers_of(nonsense)["x-forwarded-proto"] == "http"
            assert headers_of(told(edge, X_Forwarded_Proto="https"))["x-forwarded-proto"] == "http"

    def test_the_edge_is_what_this_one_calls_itself(self, gateways: dict[str, str], tmp_path: Path) -> None:
        with Edge(tmp_path / "edge", **gateways) as edge:
            names = [value for name, value in told(edge, X_Carillon_Edge="x" * 32)["headers"] if "edge" in name]
            assert names == [edge.id]
            before = edge.id
        with Edge(tmp_path / "edge", **gateways) as edge:
            assert edge.id != before, "made anew at each start"


class TestPorts:
    def test_the_status_port_has_what_this_nginx_can_tell(self, gateways: dict[str, str], tmp_path: Path) -> None:
        with Edge(tmp_path / "edge", **gateways) as edge:
            assert (edge.status("/healthz").text, edge.status("/readyz").text) == ("alive\n", "ready\n")
            assert edge.status("/").status_code == 404
            has_it = "stub_status;" in (edge.run / "nginx.conf").read_text()
            assert edge.status("/stub_status").status_code == (200 if has_it else 404)
            assert [edge.get(path).status_code for path in ("/healthz", "/readyz", "/stub_status")] == [404] * 3
            assert edge.entries[0]["path"] == "/healthz", "probes of the status port are not logged"

    def test_stub_status_of_an_nginx_that_has_it(self, gateways: dict[str, str], tmp_path: Path) -> None:
        with Edge(tmp_path / "edge", NGINX=parts.require("old-nginx"), **gateways) as edge:
            assert edge.status("/stub_status").text.startswith("Active connections: ")

    def test_the_server_api_is_passed_by_a_value_alone(self, gateways: dict[str, str], tmp_path: Path) -> None:
        with Edge(tmp_path / "off", **gateways) as edge:
            assert edge.get("/api/publish").status_code == 404
        with Edge(tmp_path / "on", API="1", **gateways) as edge:
            assert told(edge, "/api/publish")["path"] == "/api/publish"
            for path in ("/edges/x/drain", "/metrics", "/readyz", "/docs", "/app/", "/edge-drains"):
                assert edge.get(path).status_code == 404, path


def test_own_parts_are_rendered_and_included(gateways: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "server-hello.conf").write_text("location = /hello { return 200 $hello-${CARILLON_EDGE_PORT}; }\n")
    (own / "http-hello.conf").write_text("map $host $hello { default hello; }\n")
    with Edge(tmp_path / "edge", INCLUDE=str(own), **gateways) as edge:
        assert edge.get("/hello").text == f"hello-{edge.port}"


def test_load_balancers_checks_are_answered_as_deploy_md_says(gateways: dict[str, str], tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text("utf-8")
    (shown,) = re.findall(r"```yaml\n(edge:\n  include:\n.*?)```", page, re.DOTALL)
    for name, text in yaml.safe_load(shown)["edge"]["include"].items():
        (tmp_path / name).write_text(text)
    with Edge(tmp_path / "edge", INCLUDE=str(tmp_path), **gateways) as edge:
        assert edge.get("/up").status_code == 200
        rendered = [path.read_text() for path in (edge.run / "include").glob("server*.conf")]
        (seconds,) = re.findall(r"keepalive_timeout (\d+)s;", "".join(rendered))
        assert int(seconds) > 600, "Google Cloud's balancers keep idle connections so long"
        (edge.run / "draining").touch()
        assert edge.get("/up").status_code == 503
