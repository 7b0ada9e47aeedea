"""How a pod is hosted: real gunicorn, our worker, an application that stands in for the gateway."""

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from websockets.sync.client import connect

from app.server.ports import why_not
from tests.support.hosted import Pod, alive, eventually


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    """Two workers, with limits small enough for tests. Shared: tests leave it as it was."""
    limits = {"CARILLON_HEAD_TIMEOUT": "0.5", "CARILLON_MAX_HALF_OPEN": "20", "CARILLON_LOG_LEVEL": "info"}
    with Pod(workers=2, **limits) as started:
        yield started.ready()


def raw(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(data)
    return connection


def refuses(port: int) -> bool:
    try:
        raw(port).close()
    except ConnectionRefusedError:
        return True
    return False


def answer(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    with closing(connection):
        while True:
            try:
                chunk = connection.recv(65_536)
            except ConnectionResetError:
                return received
            if not chunk:
                return received
            received += chunk


class TestBeforeTheFirstFork:
    """N2, N3: what is wrong is said in one line each, and nothing is started."""

    @staticmethod
    def refused(*arguments: str, **environ: str) -> str:
        with Pod(arguments=arguments, **environ) as pod:  # type: ignore[arg-type]
            out, err = pod.process.communicate(timeout=10)
        assert pod.process.returncode == 1
        assert "Booting worker" not in out
        assert "Traceback" not in out + err
        return err

    def test_each_wrong_setting_is_one_line(self) -> None:
        error = self.refused(CARILLON_PING_INTERVAL="often", CARILLON_MAX_BODY_BYTES="-1")
        lines = error.strip().splitlines()
        assert len(lines) == 2
        assert "CARILLON_PING_INTERVAL" in lines[0] + lines[1]
        assert "CARILLON_MAX_BODY_BYTES" in lines[0] + lines[1]

    def test_memory_broker_with_two_workers(self) -> None:
        assert "memory://" in self.refused(CARILLON_REDIS_URL="memory://", WEB_CONCURRENCY="2")

    def test_timeouts_of_gunicorn_that_cut_the_drain_off_or_kill_who_only_lags(self) -> None:
        """N5."""
        error = self.refused(CARILLON_DRAIN_TIMEOUT="20", GUNICORN_CMD_ARGS="--graceful-timeout 24 --timeout 2")
        graceful, timeout = error.splitlines()
        assert "graceful_timeout of 24 s" in graceful
        assert "timeout of 2 s" in timeout

    def test_the_command_line_has_the_last_word(self) -> None:
        error = self.refused("--graceful-timeout", "14", GUNICORN_CMD_ARGS="--graceful-timeout 100")
        assert error.splitlines() == [
            "carillon: gunicorn's graceful_timeout of 14 s cuts the drain off: drain_delay + drain_timeout + 5 are 15 s"
        ]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("-k", "sync"), "worker_class"),
            (("--bind", "127.0.0.1:0"), "bind"),
            (("--bind", "unix:here.sock"), "bind"),
            (("--workers", "2"), "memory://"),
        ],
        ids=str,
    )
    def test_options_of_gunicorn_that_cannot_work(self, arguments: tuple[str, ...], named: str) -> None:
        (line,) = self.refused(*arguments, CARILLON_REDIS_URL="memory://").splitlines()
        assert named in line

    def test_a_grace_that_the_drain_does_not_fit_into(self) -> None:
        (line,) = self.refused(CARILLON_DRAIN_TIMEOUT="20", CARILLON_TERMINATION_GRACE="25").splitlines()
        assert "CARILLON_TERMINATION_GRACE: 25 s cut the drain off" in line

    def test_taken_ports_also_where_the_other_server_would_share_them(self) -> None:
        with ExitStack() as stack:
            ports = []
            for _ in range(2):
                other = stack.enter_context(socket.socket())
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind(("127.0.0.1", 0))
                other.listen()
                ports.append(other.getsockname()[1])
            error = self.refused(CARILLON_PUBLIC_PORT=str(ports[0]), CARILLON_INTERNAL_PORT=str(ports[1]))
        assert error.splitlines() == [f"carillon: 127.0.0.1:{port} is taken by another process" for port in ports]


class TestSignals:
    """N5."""

    def test_sigterm_drains_once_answers_what_is_under_way_and_leaves_nothing(self) -> None:
        with Pod(workers=2) as pod:
            pod.ready()
            metrics = Path("/dev/shm") / f"carillon-{os.geteuid()}-{pod.port}"
            assert list(metrics.glob("*.db"))
            with connect(f"ws://127.0.0.1:{pod.port}/ws") as client:
                client.send("hello")
                assert client.recv(timeout=2) == "hello"
                under_way = raw(pod.port, b"GET /slow?seconds=0.6 HTTP/1.1\r\nhost: x\r\n\r\n")
                eventually(lambda: pod.json("/who")["slow"] or pod.json("/who")["slow"])
                for slot in (0, 1):
                    pod.signal_worker(slot, signal.SIGTERM)
                code, seconds, lines, errors = pod.end()
                assert client.recv(timeout=2) == "goodbye"
            assert b"slept" in answer(under_way)
        assert code == 0
        assert seconds < 5
        assert errors == ""
        assert not [line for line in lines if line["level"] not in ("info", "debug")]
        assert [line["event"] for line in lines].count("drain begins") == 2
        assert not metrics.exists()

    def test_a_drain_that_hangs_is_served_to_its_end_and_then_cut(self) -> None:
        with Pod(CARILLON_DRAIN_TIMEOUT="1", STUBBORN="1") as pod:
            pod.ready()
            half_open = raw(pod.port, b"GET / HTTP/1.1\r\n")
            idle = raw(pod.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            started = time.monotonic()
            pod.process.terminate()
            body = eventually(lambda: (found := pod.json("/readyz"))["status"] == "unready" and found)
            assert body["state"] == "draining"
            late = raw(pod.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")  # the listener is still there (N3)
            assert b"connection: close" in answer(late)
            code, _, lines, _ = pod.end()  # a second SIGTERM
            assert 1 < time.monotonic() - started < 15
            assert answer(half_open) == b""
            assert b"200 OK" in answer(idle)
        assert code == 0
        assert "drain took too long" in [line["event"] for line in lines]

    def test_sigint_does_not_drain(self) -> None:
        with Pod(STUBBORN="1") as pod:
            pod.ready()
            with closing(raw(pod.port)):
                code, seconds, lines, _ = pod.end(signal.SIGINT)
        assert code == 0
        assert seconds < 2
        assert "drain begins" not in [line["event"] for line in lines]

    def test_workers_end_with_their_master(self) -> None:
        with Pod(workers=2) as pod:
            pids = pod.ready().children()
            assert len(pids) == 2
            pod.process.kill()
            eventually(lambda: not any(alive(pid) for pid in pids), within=5)

    def test_workers_end_with_a_master_that_dies_while_they_boot(self) -> None:
        with Pod(workers=2) as pod:
            pids = eventually(lambda: len(found := pod.children()) == 2 and found)
            pod.process.kill()
            eventually(lambda: not any(alive(pid) for pid in pids), within=8)

    def test_sighup_replaces_one_worker_after_the_other_unless_settings_are_wrong(self, tmp_path: Path) -> None:
        config = tmp_path / "carillon.toml"
        config.touch()
        with Pod(workers=2, CARILLON_CONFIG=str(config)) as pod:
            before = pod.ready().worker_pids()
            config.write_text("ping_interval = -1\n")
            pod.process.send_signal(signal.SIGHUP)
            line = pod.logged("restart refused")
            assert "ping_interval" in line["problem"]
            config.write_text("drain_timeout = 60\n")  # gunicorn's graceful_timeout stays what it was (N5)
            pod.process.send_signal(signal.SIGHUP)
            assert "graceful_timeout" in pod.logged("restart refused")["problem"]
            assert pod.worker_pids() == before

            config.write_text("ping_interval = 20\n")
            pod.process.send_signal(signal.SIGHUP)
            fewest = 2

            def replaced() -> bool:
                nonlocal fewest
                body = pod.json("/readyz")
                states = [worker["state"] for worker in body["workers"]]
                fewest = min(fewest, states.count("ready"))
                return body["status"] == "ready" and not set(before) & {worker["pid"] for worker in body["workers"]}

            eventually(replaced, within=15)
            assert fewest == 1
            assert pod.end()[0] == 0


class TestWorkersThatDie:
    """N1, N10."""

    def test_a_killed_worker_is_replaced_in_its_slot_and_the_metrics_stay_right(self, pod: Pod) -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(f"ws://127.0.0.1:{pod.port}/ws")) for _ in range(8)]
            eventually(lambda: pod.metric("carillon_connections") == len(clients))
            for _ in range(20):
                pod.get("/who")
            requests = pod.metric("carillon_http_requests_total")
            assert requests >= 20
            pids = pod.worker_pids()
            pod.signal_worker(0, signal.SIGKILL)
            eventually(lambda: pod.get("/readyz")[0] == 200 and pids[0] not in pod.worker_pids())
            after = pod.worker_pids()
            assert after[1] == pids[1]
            left = sum(_open(client) for client in clients)
            assert left < len(clients)
            eventually(lambda: pod.metric("carillon_connections") == left)
            assert pod.metric("carillon_http_requests_total") == requests
            served: list[int] = []
            eventually(lambda: served.append(pod.json("/who")["slot"]) or set(served) == {0, 1})
            assert pod.metric("carillon_http_requests_total") == requests + len(served)

    def test_nobody_waits_for_a_worker_that_boots(self) -> None:
        """It listens when it can serve; until then its neighbour gets all. The port counts as taken meanwhile (N3)."""
        with Pod(workers=2, BOOT_SECONDS="2") as pod:
            eventually(lambda: len(pod.children()) == 2)
            eventually(lambda: refuses(pod.port) and why_not("127.0.0.1", pod.port), within=1.5)
            pod.ready()
            before = set(pod.children())
            os.kill(pod.children()[0], signal.SIGKILL)
            eventually(lambda: set(pod.children()) - before)
            for _ in range(20):  # half of them would wait
                eventually(lambda: pod.get("/healthz", timeout=0.5)[0] == 200, within=0.5)
            assert pod.json("/readyz")["state"] == "starting"

    def test_a_stopped_worker_makes_the_pod_unready(self, pod: Pod) -> None:
        stopped = pod.signal_worker(1, signal.SIGSTOP)
        try:
            body = eventually(lambda: _ask_the_other(pod), within=5)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert body["state"] == "stalled"
        assert "worker 1" in body["reason"]
        eventually(lambda: pod.get("/readyz")[0] == 200)

    def test_one_that_does_not_boot_again_leaves_the_others_alone(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        with Pod(workers=2, BROKEN=str(broken)) as pod:
            pids = pod.ready().worker_pids()
            broken.touch()
            pod.signal_worker(0, signal.SIGKILL)
            pod.logged("will be tried again")
            assert pids[1] in pod.children()
            broken.unlink()
            eventually(lambda: pod.get("/readyz")[0] == 200)
            assert pids[1] in pod.worker_pids()


class TestRequestHeads:
    """H5."""

    def test_a_slow_head_is_ended(self, pod: Pod) -> None:
        with closing(raw(pod.port, b"GET /healthz HTTP/1.1\r\n")) as slow:
            started = time.monotonic()
            assert answer(slow).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 10

    def test_silence_is_ended(self, pod: Pod) -> None:
        assert answer(raw(pod.port)) == b""

    def test_dripping_after_a_response_is_ended(self, pod: Pod) -> None:
        with closing(raw(pod.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")) as connection:
            assert b"200 OK" in connection.recv(65_536)
            connection.sendall(b"\r\n")  # unsets uvicorn's keep-alive timer and begins no request
            assert b"HTTP/1.1 408 " in answer(connection)

    @pytest.mark.parametrize(
        "head",
        [
            pytest.param(b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", id="one big field"),
            pytest.param(b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", id="a long path"),
            pytest.param(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n", id="101 fields"),
            pytest.param(b"GET / HTTP/1.1\r\n" + (b"x: " + b"a" * 1000 + b"\r\n") * 40 + b"\r\n", id="40 KB of fields"),
        ],
    )
    def test_a_head_that_is_too_large(self, pod: Pod, head: bytes) -> None:
        assert answer(raw(pod.port, head)).startswith(b"HTTP/1.1 431 ")

    def test_an_endless_head(self, pod: Pod) -> None:
        connection = raw(pod.port, b"GET / HTTP/1.1\r\nx: ")
        with closing(connection), pytest.raises(OSError, match=r"Broken pipe|reset"):
            connection.sendall(b"a" * 90_000_000)

    def test_100_fields_and_a_large_body_are_fine(self, pod: Pod) -> None:
        fields = b"host: x\r\nconnection: close\r\ncontent-length: 100000\r\n" + b"x: y\r\n" * 97
        connection = raw(pod.port, b"POST /healthz HTTP/1.1\r\n" + fields + b"\r\n" + b"b" * 100_000)
        assert answer(connection).startswith(b"HTTP/1.1 405 ")

    def test_a_flood_of_half_open_connections_is_bounded(self, pod: Pod) -> None:
        before = _hits(pod)
        with ExitStack() as stack:
            flood = [stack.enter_context(closing(raw(pod.port))) for _ in range(100)]
            refused = [connection for connection in flood if _readable(connection)]
            assert len(refused) >= 60  # 20 per worker are let in
            assert refused[0].recv(65_536).startswith(b"HTTP/1.1 503 ")
        eventually(lambda: pod.get("/healthz")[0] == 200)
        eventually(lambda: _hits(pod) - before >= 60)

    def test_no_client_can_flood_the_log(self) -> None:
        with Pod() as pod:
            pod.ready()
            for _ in range(20):
                answer(raw(pod.port, b"\x16\x03\x01 this is not HTTP\r\n\r\n"))
                answer(raw(pod.port, b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 101 + b"\r\n"))
                answer(raw(pod.port, b"GET /ws?token=hush HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\n"
                                     b"upgrade: h2c\r\n\r\n"))  # fmt: skip
            eventually(lambda: pod.metric("carillon_http_bad_requests_total") == 20)
            _, _, lines, errors = pod.end()
        assert len(lines) < 20
        assert errors == ""
        assert "hush" not in json.dumps(lines)


def test_addresses_come_from_trusted_proxies_only(pod: Pod) -> None:
    """A3: the right-most address that is no trusted proxy, on WebSockets too."""
    forwarded = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 127.0.0.1"}
    with connect(f"ws://127.0.0.1:{pod.port}/address", additional_headers=forwarded) as client:
        assert client.recv(timeout=2) == "203.0.113.7"


def test_the_soft_limit_of_open_files_is_raised() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Pod(preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))) as pod:
        assert pod.ready().json("/who")["nofile"] == hard
        assert pod.metric("carillon_process_max_fds") == hard


def test_a_hard_limit_that_stays_too_low_is_said_once() -> None:
    with Pod(preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (900, 900)), workers=2) as pod:
        line = pod.ready().logged("open files")
        assert line["level"] == "warning"
        assert "a worker can hold 644 clients" in line["event"]
        assert "open files" not in str(pod.end()[2])


def test_metrics_of_a_former_pod_are_emptied(tmp_path: Path) -> None:
    """N10: nothing runs when a master dies, so its files may still be there."""
    left_over = tmp_path / "counter_7.db"
    left_over.write_bytes(b"\0" * 65_536)
    with Pod(PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) as pod:
        assert "carillon_process_cpu_seconds_total" in pod.ready().get("/metrics")[1]
        assert not left_over.exists()
        assert (tmp_path / "counter_0.db").exists()


def _open(client: object) -> bool:
    try:
        client.send("still there?")  # type: ignore[attr-defined]
        return bool(client.recv(timeout=2))  # type: ignore[attr-defined]
    except Exception:
        return False


def _ask_the_other(pod: Pod) -> dict[str, str] | None:
    """A request may land at the stopped worker, and then times out."""
    status, body = pod.get("/readyz", timeout=0.3)
    return json.loads(body) if status == 503 else None


def _hits(pod: Pod) -> float:
    name = 'carillon_limit_hits_total{limit="max_half_open"}'
    return pod.metric(name) if name in pod.get("/metrics")[1] else 0


def _readable(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
