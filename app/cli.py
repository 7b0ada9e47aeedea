"""`python -m app`: build, serve, what to try it with, and what writes the pods' deletion cost in Kubernetes."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from app import native, smoke
from app.auth.tokens import MAX_USER_LENGTH, TokenVerifier, sign
from app.broker.factory import create_broker
from app.deletion_cost import program as deletion_cost
from app.deletion_cost.kube_api import ACCOUNT
from app.hosting import check_timeouts, check_workers, graceful_timeout
from app.settings import SettingsError, load

INTERNAL_API = "http://127.0.0.1:9000"

REFUSED = 1  # exit status: the gateway did not do it
WRONG = 2  # exit status: the command line or the settings are wrong, as argparse has it


class _Refused(Exception):
    """The gateway cannot be reached, or did not do it; the compiler refuses."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    command = _parser().parse_args(arguments)
    try:
        command.run(command)
    except SettingsError as error:
        return _complain(str(error), WRONG)
    except UnicodeEncodeError:
        return _complain("an argument is not UTF-8", WRONG)
    except _Refused as error:
        return _complain(str(error), REFUSED)
    return 0


def _complain(text: str, status: int) -> int:
    for line in text.splitlines():
        print(f"carillon: {line}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description="Carillon, a WebSocket gateway.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run a pod: gunicorn with WEB_CONCURRENCY workers")
    serve.set_defaults(run=_serve)

    build = commands.add_parser("build", help="compile the fan-out's innermost loop, where there is a C compiler")
    build.set_defaults(run=_build)

    token = commands.add_parser("token", help="print a connection token signed with CARILLON_TOKEN_HMAC_SECRET")
    token.add_argument("--user", type=_user, required=True, metavar="U", help="who it is for (claim `sub`)")
    token.add_argument("--rooms", default="", metavar="PATTERNS", help="rooms to subscribe to, as in 'chat:*,news'")
    token.add_argument("--publish", default="", metavar="PATTERNS", help="rooms to publish into")
    token.add_argument("--ttl", type=_seconds, default=3600, metavar="S", help="seconds until it expires (3600)")
    token.set_defaults(run=_token)

    publish = commands.add_parser("publish", help="publish into a room over the HTTP API")
    publish.add_argument("room", metavar="ROOM")
    publish.add_argument("data", type=_json, metavar="DATA_JSON", help="""any JSON, as in '{"text": "hello"}'""")
    publish.add_argument("--url", default=INTERNAL_API, help=f"where the API is ({INTERNAL_API})")
    publish.add_argument("--key", metavar="K", help="API key; else the first of CARILLON_API_KEYS")
    publish.set_defaults(run=_publish)

    seen = commands.add_parser("smoke", help="see that a publication reaches clients of several pods")
    seen.add_argument("url", metavar="URL", help="where clients connect, as in ws://localhost:8080/ws")
    seen.add_argument("--api", default=INTERNAL_API, help=f"where the API is ({INTERNAL_API})")
    seen.add_argument("--room", default="carillon-smoke", metavar="R", help="where to publish (carillon-smoke)")
    seen.add_argument("--pods", type=_count, default=2, metavar="N", help="how many pods have to be met (2)")
    seen.add_argument("--timeout", type=_seconds, default=60, metavar="S", help="seconds that it may take (60)")
    seen.set_defaults(run=_smoke)

    cost = commands.add_parser(
        "deletion-cost",
        help="in a Kubernetes pod of its own: write the gateway pods' connections to them as their deletion cost",
    )
    cost.add_argument("--selector", required=True, metavar="LABELS", help="of the gateway pods, as in 'a=b,c=d'")
    cost.add_argument("--interval", type=_seconds, default=30, metavar="S", help="seconds between two looks (30)")
    cost.add_argument("--rate", type=_count, default=5, metavar="N", help="most pods patched per second (5)")
    cost.add_argument(
        "--account", type=Path, default=ACCOUNT, metavar="DIR", help=f"token, ca.crt and namespace ({ACCOUNT})"
    )
    cost.set_defaults(run=_deletion_cost)
    return parser


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("must be a whole number of seconds, 1 or more")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return int(text)


def _user(text: str) -> str:
    if not 0 < len(text) <= MAX_USER_LENGTH:
        raise argparse.ArgumentTypeError(f"must have 1 to {MAX_USER_LENGTH} characters")
    return text


def _json(text: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise argparse.ArgumentTypeError("not JSON; a string needs quotes of its own, as in '\"hello\"'") from None
    return msgspec.Raw(text)


def _serve(_command: argparse.Namespace) -> None:
    settings = load()  # wrong settings are named here, before gunicorn makes a traceback of them
    # What the settings only name is read here too: else each worker dies of it, and all others with it (N2).
    TokenVerifier(settings)
    create_broker(settings, node="")
    check_timeouts(settings, graceful_timeout(settings))
    workers = os.environ.get("WEB_CONCURRENCY", "1")
    if not workers.isdecimal():
        raise SettingsError(f"WEB_CONCURRENCY: must be a number of workers, not {workers!r}")
    check_workers(settings, int(workers))
    python = sys.executable
    # In the place of this process, so that signals for it reach gunicorn's master.
    os.execv(python, [python, "-m", "gunicorn", "-c", "python:app.server.gunicorn_conf", "app.main:create_app()"])


def _build(_command: argparse.Namespace) -> None:
    try:
        built = native.build()
    except native.BuildFailed as error:
        raise _Refused(f"the send loop was not compiled, and runs in Python:\n{error}") from None
    if built is None:
        print("carillon: no C compiler (or no Linux): the send loop runs in Python")


def _token(command: argparse.Namespace) -> None:
    print(sign(load(), command.user, command.rooms, command.publish, command.ttl))


def _publish(command: argparse.Namespace) -> None:
    print(_post(command.url, command.key or _first_key(), command.room, command.data))


def _post(url: str, key: str, room: str, data: object) -> str:
    body = msgspec.json.encode({"room": room, "data": data})
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    try:
        answer = httpx.post(
            f"{url.rstrip('/')}/api/publish", content=body, headers=headers, timeout=10, trust_env=False
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _Refused(f"{url}: {error}") from None
    if answer.status_code != 200:
        raise _Refused(f"{url} answered {answer.status_code}: {answer.text[:500]}")
    return answer.text


def _first_key() -> str:
    keys = load().api_keys
    if not keys:
        raise SettingsError("CARILLON_API_KEYS: needed to publish, or give --key")
    return keys[0].get_secret_value()


def _smoke(command: argparse.Namespace) -> None:
    key = _first_key()
    token = sign(load(), "carillon-smoke", [command.room], ttl=command.timeout + 60)

    def publish(data: str) -> None:
        _post(command.api, key, command.room, data)

    try:
        seen = smoke.run(
            command.url, token=token, room=command.room, publish=publish, pods=command.pods, timeout=command.timeout
        )
    except smoke.SmokeError as error:
        raise _Refused(str(error)) from None
    print(seen)


def _deletion_cost(command: argparse.Namespace) -> None:
    deletion_cost.run(command.selector, interval=command.interval, rate=command.rate, account=command.account)
