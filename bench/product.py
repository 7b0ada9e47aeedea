"""The product as `make run` runs it: Valkey, gunicorn with its workers, Nginx where it is asked for."""

import base64
import hashlib
import hmac
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey

from bench.dialect import Dialect, Line
from bench.process import children
from bench.server import Server, running
from local.ports import free_ports
from local.stack import plan

SECRET = "a-secret-of-the-benchmark-that-is-long-enough"
ROOM = "bench"

#: A limit that keeps users from harming each other would keep the benchmark from measuring.
_LIMITS_OFF = {"CARILLON_MESSAGE_RATE": "0"}


@contextmanager
def product(
    folder: Path,
    *,
    workers: int = 1,
    edge: bool = False,
    name: str = "carillon",
    headers: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A running pod. `env` is added to its settings; `edge`: clients come through Nginx; `headers`: of its members."""
    folder = folder / name
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CARILLON_")}
    environ = kept | {"CARILLON_TOKEN_HMAC_SECRET": SECRET, "CARILLON_API_KEYS": "bench-" + "k" * 32}
    environ |= _LIMITS_OFF | {"WEB_CONCURRENCY": str(workers), "CARILLON_LOG_LEVEL": "warning"} | dict(env or {})
    port = free_ports(1)[0] if edge else None
    made = plan(folder, port=port, pods=1, environ=environ)
    assert made.valkey is not None
    services = [made.valkey, made.pods[0].service, *([made.edge] if made.edge else [])]
    with running(services) as processes:
        beside: dict[str, Callable[[], list[int]]] = {"redis": lambda: [processes[0].pid]}
        if edge:
            beside["nginx"] = lambda: [processes[2].pid, *children(processes[2].pid)]
        yield Server(
            name=name,
            port=port or made.pods[0].public_port,
            dialect=_dialect(headers),
            pids=lambda: children(processes[1].pid),
            beside=beside,
            redis_url=made.redis_url,
        )


def _dialect(headers: tuple[str, ...]) -> Dialect:
    """Members authenticate by the upgrade's header, each as a user of its own, and subscribe to one room."""
    return Dialect(
        member=lambda number: Line("/ws", (subscribe(ROOM),), (bearer(f"user-{number}"), *headers)),
        publisher=lambda: Line("/ws", (), (bearer("publisher"),)),
        publish=lambda text: _json({"type": "publish", "room": ROOM, "data": text}),
        ping=('{"type":"ping"}', '{"type":"pong"}'),
    )


def subscribe(room: str) -> tuple[str, str]:
    """The command, and a part of its answer."""
    return _json({"type": "subscribe", "id": 1, "room": room}), f'"room":"{room}"'


def subscriber(user: str, rooms: Sequence[str]) -> Line:
    """A session in several rooms; waits for the last answer."""
    script = [(subscribe(room)[0], "") for room in rooms[:-1]] + [subscribe(rooms[-1])]
    return Line("/ws", tuple(script), (bearer(user),))


def by_message(number: int) -> Line:
    """A member that sends its token in the first message, as browsers do."""
    return Line("/ws", ((_json({"type": "auth", "token": token(f"user-{number}")}), ""), subscribe(ROOM)))


@dataclass(frozen=True)
class Signer:
    """Signs tokens with a key pair, of which the server knows the public half."""

    key: OKPKey
    public: Path

    def member(self, number: int) -> Line:
        """A member with such a token in its upgrade."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # RFC 9864 prefers another name for EdDSA
            token = jwt.encode({"alg": "EdDSA"}, claims(f"user-{number}"), self.key, algorithms=["EdDSA"])
        return Line("/ws", (subscribe(ROOM),), (f"Authorization: Bearer {token}",))


def eddsa_signer(folder: Path) -> Signer:
    key, public = OKPKey.generate_key("Ed25519"), folder / "eddsa.pem"
    public.write_bytes(key.as_pem(private=False))
    return Signer(key, public)


def bearer(user: str) -> str:
    return f"Authorization: Bearer {token(user)}"


def _json(command: dict[str, object]) -> str:
    return json.dumps(command, separators=(",", ":"))


def claims(user: str) -> dict[str, object]:
    return {"sub": user, "rooms": ["*"], "publish": ["*"], "exp": int(time.time()) + 7200}


def token(user: str) -> str:
    """A connection token (HS256). Signed here, as thousands are made in a moment."""
    head, body = (_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims(user)))
    signature = hmac.new(SECRET.encode(), head + b"." + body, hashlib.sha256).digest()
    return b".".join((head, body, _base64(signature))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
