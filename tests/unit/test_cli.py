"""`python -m app`: what each command prints, and that mistakes end with one clear line and no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import HTTPServer

import pytest

from app.auth.tokens import TokenVerifier
from app.cli import main
from app.settings import load
from tests.support.http_server import SilentHandler, serving_in_thread

SECRET = "a-secret-of-thirty-two-characters"


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.startswith("CARILLON_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CARILLON_TOKEN_HMAC_SECRET", SECRET)
    return monkeypatch


class Api(HTTPServer):
    """Answers like `/api/publish` and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None, bytes]] = []
        self.answer = (200, b'{"epoch":"e1","offset":7}')

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(SilentHandler):
    server: Api

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["X-API-Key"], body))
        status, answer = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def api() -> Iterator[Api]:
    with serving_in_thread(Api()) as server:
        yield server


Captured = pytest.CaptureFixture[str]


class TestToken:
    def test_is_printed_alone(self, capsys: Captured) -> None:
        assert main(["token", "--user", "u1", "--rooms", "chat:*,news", "--publish", "chat:*", "--ttl", "60"]) == 0
        printed = capsys.readouterr()
        assert (printed.out.count("\n"), printed.err) == (1, "")
        claims = TokenVerifier(load()).verify_now(printed.out.strip())
        assert claims is not None
        assert (claims.user, claims.rooms, claims.publish) == ("u1", ("chat:*", "news"), ("chat:*",))

    def test_without_rights(self, capsys: Captured) -> None:
        assert main(["token", "--user", "u1"]) == 0
        claims = TokenVerifier(load()).verify_now(capsys.readouterr().out.strip())
        assert claims is not None
        assert (claims.rooms, claims.publish) == ((), ())

    def test_needs_a_secret(self, env: pytest.MonkeyPatch, capsys: Captured) -> None:
        env.delenv("CARILLON_TOKEN_HMAC_SECRET")
        assert main(["token", "--user", "u1"]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == "carillon: CARILLON_TOKEN_HMAC_SECRET: needed to sign a token\n"

    @pytest.mark.parametrize("ttl", ["0", "-1", "1.5", "soon", "٣x"])
    def test_lives_for_whole_seconds(self, capsys: Captured, ttl: str) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["token", "--user", "u1", "--ttl", ttl])
        assert "whole number of seconds" in capsys.readouterr().err

    @pytest.mark.parametrize("user", ["", "x" * 256])
    def test_is_for_somebody(self, capsys: Captured, user: str) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["token", "--user", user])
        assert "1 to 255 characters" in capsys.readouterr().err

    def test_is_for_a_name_in_utf8(self, capsys: Captured) -> None:
        assert main(["token", "--user", os.fsdecode(b"\xff")]) == 2
        assert capsys.readouterr().err == "carillon: an argument is not UTF-8\n"


class TestPublish:
    def test_prints_the_position(self, api: Api, env: pytest.MonkeyPatch, capsys: Captured) -> None:
        env.setenv("CARILLON_API_KEYS", "first,second")
        assert main(["publish", "chat:lobby", '{"text": "hello"}', "--url", api.url]) == 0
        assert json.loads(capsys.readouterr().out) == {"epoch": "e1", "offset": 7}
        ((path, key, body),) = api.asked
        assert (path, key) == ("/api/publish", "first")
        assert json.loads(body) == {"room": "chat:lobby", "data": {"text": "hello"}}

    def test_the_data_goes_out_as_it_was_given(self, api: Api) -> None:
        assert main(["publish", "r", "123456789012345678901234567890", "--url", f"{api.url}/", "--key", "k"]) == 0
        assert api.asked[0] == ("/api/publish", "k", b'{"room":"r","data":123456789012345678901234567890}')

    def test_a_given_key_needs_no_settings(self, api: Api, env: pytest.MonkeyPatch) -> None:
        env.setenv("CARILLON_DEV", "maybe")
        assert main(["publish", "r", "1", "--url", api.url, "--key", "k"]) == 0

    def test_needs_a_key(self, capsys: Captured) -> None:
        assert main(["publish", "r", "1"]) == 2
        assert capsys.readouterr().err == "carillon: CARILLON_API_KEYS: needed to publish, or give --key\n"

    def test_a_refusal_is_shown(self, api: Api, capsys: Captured) -> None:
        api.answer = (403, b'{"error":{"code":103}}')
        assert main(["publish", "r", "1", "--url", api.url, "--key", "k"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == f'carillon: {api.url} answered 403: {{"error":{{"code":103}}}}\n'

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[", "ftp://h"])
    def test_nobody_there(self, capsys: Captured, url: str) -> None:
        assert main(["publish", "r", "1", "--url", url, "--key", "k"]) == 1
        assert capsys.readouterr().err.startswith(f"carillon: {url}: ")

    @pytest.mark.parametrize("data", ["hello", "{", "", "NaN", "1 2", "\udcff", '"\udcff"', "[" * 5000])
    def test_data_is_json(self, capsys: Captured, data: str) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["publish", "r", data])
        assert "not JSON" in capsys.readouterr().err


class TestProgram:
    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            env=os.environ | environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def test_wrong_settings_end_it_with_a_line_each(self) -> None:
        ended = self.run("serve", CARILLON_DEV="maybe", CARILLON_TICKET_TTL="0")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert [line.partition(": ")[2].partition(":")[0] for line in ended.stderr.splitlines()] == [
            "CARILLON_DEV",
            "CARILLON_TICKET_TTL",
        ]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("CARILLON_TOKEN_PUBLIC_KEYS", "none.pem"),
            ("CARILLON_REDIS_URL", "kafka://user:a-password@h"),
            ("CARILLON_REDIS_URL", "rediss://h?ca=none.pem"),
        ],
    )
    def test_what_settings_name_is_read_before_anything_is_forked(self, name: str, value: str) -> None:  # N2
        ended = self.run("serve", **{name: value})
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert ended.stderr.startswith(f"carillon: {name}: ")
        assert "a-password" not in ended.stderr

    def test_a_drain_that_would_be_cut_off_is_refused(self) -> None:  # N5
        ended = self.run("serve", CARILLON_DRAIN_TIMEOUT="25", CARILLON_TERMINATION_GRACE="30")
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert ended.stderr.startswith("carillon: CARILLON_TERMINATION_GRACE: 30 s cut the drain off")

    def test_no_command_shows_the_usage(self) -> None:
        ended = self.run()
        assert ended.returncode == 2
        assert ended.stderr.startswith("usage: python -m app")

    def test_serve_with_what_is_no_number_of_workers_is_one_line(self) -> None:
        ended = self.run("serve", WEB_CONCURRENCY="many")
        assert ended.returncode == 2
        assert "WEB_CONCURRENCY: must be a number of workers, not 'many'" in ended.stderr
        assert "Traceback" not in ended.stderr

    @pytest.mark.parametrize("workers", ["0", "2"])
    def test_workers_that_cannot_be_are_settings_too(self, workers: str) -> None:
        """Whoever starts it again and again, but for wrong settings (status 2), has to know."""
        ended = self.run("serve", WEB_CONCURRENCY=workers, CARILLON_REDIS_URL="memory://")
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert "WEB_CONCURRENCY" in ended.stderr

    def test_serve_becomes_gunicorn(self) -> None:
        # what its configuration refuses, so that it ends
        ended = self.run("serve", GUNICORN_CMD_ARGS="--bind=127.0.0.1:1")
        assert ended.returncode == 1
        assert "carillon: gunicorn's bind is made from" in ended.stderr
        assert "Traceback" not in ended.stderr
