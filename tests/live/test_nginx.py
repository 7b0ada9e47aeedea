"""What the edge does with requests: a real Nginx in front of two stand-in pods that say what they were sent."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from local.stack import DEMO
from tests.support.stack import STANDIN, Stack, StackFactory
from tests.support.waiting import until, wait_until

COOKIE = "carillon_edge"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    app = tmp_path_factory.mktemp("app")
    (app / "assets").mkdir()
    (app / "index.html").write_text("<title>the app</title>")
    (app / "assets" / "app.js").write_text("let app")
    env = {"CARILLON_APP_DIR": str(app)}
    with Stack(tmp_path_factory.mktemp("edge"), env=env, pod_command=STANDIN) as stack:
        yield stack


@pytest.fixture
def edge(shared: Stack) -> Iterator[Stack]:
    yield shared
    for pod in (1, 2):
        answer_with(shared, pod, 200)


@pytest.fixture
def http(edge: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=edge.url, trust_env=False) as client:
        yield client


def answer_with(stack: Stack, pod: int, status: int) -> None:
    httpx.post(f"{stack.pods[pod - 1].internal_url}/standin/{status}", trust_env=False)


def cookie_of(headers: Any) -> str:
    """The value of the sticky cookie in an answer."""
    return SimpleCookie(headers["Set-Cookie"])[COOKIE].value


async def who(socket: ClientConnection) -> int:
    pod: int = json.loads(await socket.recv())["pod"]
    return pod


def logged(stack: Stack, path: str) -> list[dict[str, Any]]:
    """The access log's entries about a path, once there are any."""

    def entries() -> list[dict[str, Any]]:
        return [entry for line in stack.log("access").splitlines() if (entry := json.loads(line))["path"] == path]

    wait_until(entries, f"{path} is logged")
    return entries()


class TestStickiness:
    async def test_new_clients_are_spread_over_the_pods(self, edge: Stack) -> None:
        async with AsyncExitStack() as open_sockets:
            sockets = [await open_sockets.enter_async_context(connect(f"{edge.ws_url}/ws")) for _ in range(20)]
            assert Counter([await who(socket) for socket in sockets]) == {pod.public_port: 10 for pod in edge.pods}

    async def test_a_cookie_leads_back_to_the_same_pod(self, edge: Stack) -> None:
        async with connect(f"{edge.ws_url}/ws") as first:
            pod = await who(first)
            assert first.response
            cookie = f"{COOKIE}={cookie_of(first.response.headers)}"
        for _ in range(6):
            async with connect(f"{edge.ws_url}/ws", additional_headers={"Cookie": cookie}) as again:
                assert await who(again) == pod

    def test_scripts_and_other_sites_do_not_get_the_cookie(self, http: httpx.Client) -> None:
        attributes = http.get("/").headers["Set-Cookie"].lower().split("; ")[1:]
        assert {"httponly", "samesite=lax", "path=/"} <= set(attributes)


class TestRefusals:
    """N4: 503 means "this node", 429 means "this client"."""

    async def test_503_passes_the_client_on_against_its_cookie_which_is_set_anew(self, edge: Stack) -> None:
        async with connect(f"{edge.ws_url}/ws") as first:
            pod = await who(first)
            assert first.response
            cookie = cookie_of(first.response.headers)
        number = [pod.public_port for pod in edge.pods].index(pod) + 1
        answer_with(edge, number, 503)
        async with connect(f"{edge.ws_url}/ws", additional_headers={"Cookie": f"{COOKIE}={cookie}"}) as second:
            assert await who(second) != pod
            assert second.response
            assert cookie_of(second.response.headers) != cookie

    async def test_a_pod_that_refuses_a_hundred_times_is_not_taken_out(self, edge: Stack) -> None:
        answer_with(edge, 1, 503)
        for _ in range(100):
            async with connect(f"{edge.ws_url}/ws") as socket:
                assert await who(socket) == edge.pods[1].public_port
        answer_with(edge, 1, 200)
        answer_with(edge, 2, 503)
        async with connect(f"{edge.ws_url}/ws") as socket:
            assert await who(socket) == edge.pods[0].public_port

    @pytest.mark.parametrize(("status", "asked"), [(503, 2), (429, 1)])
    async def test_what_every_pod_refuses_stays_refused(self, edge: Stack, status: int, asked: int) -> None:
        for pod in (1, 2):
            answer_with(edge, pod, status)
        path = f"/ws/refused-{status}"
        with pytest.raises(InvalidStatus) as refused:
            await connect(edge.ws_url + path)
        assert refused.value.response.status_code == status
        [entry] = logged(edge, path)
        assert len(entry["upstream"].split(", ")) == asked

    def test_a_post_that_was_sent_is_not_sent_again(self, edge: Stack, http: httpx.Client) -> None:
        for pod in (1, 2):
            answer_with(edge, pod, 503)
        assert http.post("/emulation/once", content=b"x").status_code == 503
        [entry] = logged(edge, "/emulation/once")
        assert entry["upstream_status"] == "503"

    async def test_a_dead_pod_costs_nobody_anything(self, make_stack: StackFactory) -> None:
        stack = make_stack(pod_command=STANDIN)
        stack.stop_pod(1)
        async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as http:
            for _ in range(10):
                async with connect(f"{stack.ws_url}/ws") as socket:
                    assert await who(socket) == stack.pods[1].public_port
                assert (await http.post("/emulation")).status_code == 200
        stack.start_pod(1)
        stack.wait_ready()
        async with AsyncExitStack() as open_sockets:
            sockets = [await open_sockets.enter_async_context(connect(f"{stack.ws_url}/ws")) for _ in range(4)]
            assert edge_ports(stack) == {await who(socket) for socket in sockets}


def edge_ports(stack: Stack) -> set[int]:
    return {pod.public_port for pod in stack.pods}


class TestWhatIsPassed:
    """N7: public paths to everybody, internal ones to this machine alone."""

    PUBLIC = (
        "/",
        "/ws",
        "/ws/chat:lobby",
        "/connection/websocket",
        "/emulation",
        "/static/demo/of-the-gateway.js",
        "/demo/token",
    )
    INTERNAL = (
        "/api/publish",
        "/healthz",
        "/readyz",
        "/startupz",
        "/docs",
        "/openapi.json",
        "/metrics/1",
        "/metrics/2",
    )
    NOTHING = (
        "/metrics",
        "/metrics/",
        "/metrics/3",
        "/metrics/1/x",
        "/wsx",
        "/apis",
        "/docs/x",
        "/standin/500",
        "/.env",
    )

    @pytest.mark.parametrize("path", PUBLIC)
    def test_public_paths(self, http: httpx.Client, edge: Stack, path: str) -> None:
        assert http.get(path).json()["path"] == path

    @pytest.mark.parametrize("path", INTERNAL)
    def test_internal_paths_are_for_this_machine(self, http: httpx.Client, edge: Stack, path: str) -> None:
        assert http.get(path).status_code == 200
        with from_elsewhere(edge) as elsewhere:
            assert elsewhere.get(path, headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403

    def test_public_paths_are_for_everybody(self, edge: Stack) -> None:
        with from_elsewhere(edge) as elsewhere:
            assert elsewhere.get("/ws").status_code == 200

    def test_metrics_are_those_of_the_pod_that_was_named(self, http: httpx.Client, edge: Stack) -> None:
        for number, pod in enumerate(edge.pods, 1):
            told = http.get(f"/metrics/{number}").json()
            assert (told["pod"], told["path"]) == (pod.public_port, "/metrics")

    @pytest.mark.parametrize("path", NOTHING)
    def test_everything_else_is_404(self, http: httpx.Client, path: str) -> None:
        assert http.get(path).status_code == 404


def from_elsewhere(stack: Stack) -> httpx.Client:
    """A client whose address is not 127.0.0.1 (Linux lets one take all of 127.0.0.0/8)."""
    return httpx.Client(base_url=stack.url, transport=httpx.HTTPTransport(local_address="127.0.0.2"), trust_env=False)


class TestHeaders:
    def test_what_a_client_says_about_its_address_is_not_believed(self, http: httpx.Client) -> None:
        claims = {
            "X-Forwarded-For": "6.6.6.6",
            "Forwarded": "for=6.6.6.6",
            "X-Forwarded-Proto": "https",
            "X-Request-ID": "mine",
        }
        headers = dict(http.get("/", headers=claims).json()["headers"])
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert "forwarded" not in headers
        assert len(headers["x-request-id"]) == 32

    def test_a_load_balancer_that_is_trusted_is_believed(self, make_stack: StackFactory) -> None:
        stack = make_stack(pod_command=STANDIN, edge_settings={"TRUSTED": "127.0.0.2"})
        claim = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
        with from_elsewhere(stack) as balancer:
            assert dict(balancer.get("/", headers=claim).json()["headers"])["x-forwarded-for"] == "203.0.113.9"
        direct = httpx.get(stack.url, headers=claim, trust_env=False).json()
        assert dict(direct["headers"])["x-forwarded-for"] == "127.0.0.1"

    def test_only_websocket_is_an_upgrade(self, http: httpx.Client) -> None:
        headers = dict(http.get("/", headers={"Connection": "Upgrade", "Upgrade": "h2c"}).json()["headers"])
        assert "upgrade" not in headers
        assert "connection" not in headers

    def test_connections_to_the_pods_are_kept_open(self, http: httpx.Client) -> None:
        clients = {tuple(http.get("/").json()["client"]) for _ in range(40)}
        assert len(clients) <= 4, "one for each of two Nginx workers and two pods"

    def test_a_long_cookie_passes_and_a_huge_head_is_431(self, http: httpx.Client) -> None:
        assert http.get("/", headers={"Cookie": "token=" + "x" * 12_000}).status_code == 200
        assert http.get("/", headers={"Cookie": "token=" + "x" * 20_000}).status_code == 431
        assert http.get("/", headers=[(f"x-{n}", "x" * 8_000) for n in range(9)]).status_code == 431

    def test_a_huge_body_is_413(self, http: httpx.Client) -> None:
        assert http.post("/emulation", content=b"x" * 200_000).status_code == 413
        assert http.post("/api/publish", content=b"x" * 3_000_000).status_code == 413


class TestAccessLog:
    def test_a_line_is_json_with_the_request_id_and_without_the_query(self, edge: Stack, http: httpx.Client) -> None:
        told = http.get("/demo/log?ticket=TICKET-ONE", headers={"Authorization": "Bearer TOKEN-ONE"}).json()
        [entry] = logged(edge, "/demo/log")
        assert entry["request_id"] == dict(told["headers"])["x-request-id"]
        assert (entry["status"], entry["method"], entry["address"]) == (200, "GET", "127.0.0.1")
        assert entry["upstream"] == f"127.0.0.1:{told['pod']}"
        assert "-ONE" not in edge.log("access")

    async def test_no_log_has_a_ticket_when_pods_are_away_either(self, make_stack: StackFactory) -> None:
        """Nginx quotes the whole request line in its error log."""
        stack = make_stack(pod_command=STANDIN)
        for pod in (1, 2):
            stack.stop_pod(pod)
        with pytest.raises(InvalidStatus, match="502"):
            await connect(f"{stack.ws_url}/ws/away?ticket=TICKET-TWO")
        assert raw(stack, f"GET /{'x' * 20_000}?ticket=TICKET-TWO HTTP/1.1\r\n\r\n").split()[1] == "414"
        [entry] = logged(stack, "/ws/away")
        assert entry["upstream_status"] == "502, 502 : 502, 502", "each pod, and each once more"
        assert "TICKET-TWO" not in stack.log("access") + stack.log("nginx")


class TestSinglePageApp:
    def test_files_are_served_with_their_types(self, http: httpx.Client) -> None:
        script = http.get("/app/assets/app.js")
        assert (script.text, script.headers["Content-Type"]) == ("let app", "text/javascript")

    @pytest.mark.parametrize("path", ["/app/", "/app/rooms/7", "/app/index.html"])
    def test_routes_of_the_app_get_its_index(self, http: httpx.Client, path: str) -> None:
        page = http.get(path)
        assert page.text == "<title>the app</title>"
        assert page.headers["Content-Type"] == "text/html"
        assert page.headers["Cache-Control"] == "no-cache"

    def test_the_bare_path_leads_to_the_folder(self, http: httpx.Client) -> None:
        assert http.get("/app").headers["Location"] == "/app/"

    def test_nothing_outside_of_the_folder_is_served(self, edge: Stack) -> None:
        for path in ("/app/../../etc/passwd", "/app/%2e%2e/%2e%2e/etc/passwd", "/app../secrets.json"):
            assert raw(edge, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").split()[1] in (
                "400",
                "404",
            )

    def test_without_an_app_it_is_404(self, make_stack: StackFactory) -> None:
        stack = make_stack(pods=1, pod_command=STANDIN)
        for path in ("/app/", "/app/rooms/7"):
            assert httpx.get(stack.url + path, trust_env=False).status_code == 404


def raw(stack: Stack, request: str) -> str:
    """What is answered to a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", stack.port), 5) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()


def test_the_demo_is_served_from_disk_in_development_alone(edge: Stack, make_stack: StackFactory) -> None:
    page = httpx.get(f"{edge.url}/static/demo/demo.css", trust_env=False)
    assert page.headers["Content-Type"] == "text/css"
    assert page.content == (DEMO / "demo.css").read_bytes()
    assert logged(edge, "/static/demo/demo.css")[0]["upstream"] == ""
    serious = make_stack(pods=1, pod_command=STANDIN, env={"CARILLON_DEV": "0"})
    assert "pod" in httpx.get(f"{serious.url}/static/demo/demo.css", trust_env=False).json()


class TestStreams:
    def test_events_are_not_held_back(self, http: httpx.Client) -> None:
        with http.stream("GET", "/sse") as events:
            assert next(events.iter_text()) == "data: one\n\n"

    async def test_messages_pass_both_ways(self, edge: Stack) -> None:
        async with connect(f"{edge.ws_url}/ws", max_size=None) as socket:
            await who(socket)
            for message in ("hello", "x" * 300_000):
                await socket.send(message)
                assert await socket.recv() == message


class TestLimitsPerAddress:
    """A3: off by default, as mobile carriers put thousands of clients behind one address."""

    async def test_off_by_default(self, edge: Stack) -> None:
        async with AsyncExitStack() as open_sockets:
            await asyncio.gather(*(open_sockets.enter_async_context(connect(f"{edge.ws_url}/ws")) for _ in range(100)))

    async def test_too_many_connections_are_429(self, make_stack: StackFactory) -> None:
        stack = make_stack(pods=1, pod_command=STANDIN, edge_settings={"ADDRESS_CONNECTIONS": "3"})
        async with AsyncExitStack() as open_sockets:
            sockets = [await open_sockets.enter_async_context(connect(f"{stack.ws_url}/ws")) for _ in range(3)]
            with pytest.raises(InvalidStatus, match="429"):
                await connect(f"{stack.ws_url}/ws")
            await sockets[0].close()
            await until(lambda: len(logged(stack, "/ws")) == 2, "the edge has seen the end")
            await open_sockets.enter_async_context(connect(f"{stack.ws_url}/ws"))

    async def test_too_many_upgrades_a_second_are_429(self, make_stack: StackFactory) -> None:
        stack = make_stack(pods=1, pod_command=STANDIN, edge_settings={"ADDRESS_RATE": "5"})
        async with AsyncExitStack() as open_sockets:
            answers = await asyncio.gather(
                *(open_sockets.enter_async_context(connect(f"{stack.ws_url}/ws")) for _ in range(20)),
                return_exceptions=True,
            )
        refused = [answer for answer in answers if isinstance(answer, InvalidStatus)]
        assert {answer.response.status_code for answer in refused} == {429}
        assert 5 <= len(answers) - len(refused) <= 10


def test_workers_of_an_edge_started_as_root_can_read_a_private_folder(make_stack: StackFactory, tmp_path: Path) -> None:
    """By default they would become `nobody`."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "index.html").write_text("mine")
    stack = make_stack(pods=1, pod_command=STANDIN, env={"CARILLON_APP_DIR": str(private)})
    assert httpx.get(f"{stack.url}/app/", trust_env=False).text == "mine"
