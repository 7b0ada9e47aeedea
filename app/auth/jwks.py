"""The public keys behind a JWKS URL: fetched at first use, cached, rotated, never waited for at start (N2)."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from functools import cache
from ssl import SSLContext

import httpx
import msgspec

from app.auth.keys import TokenKey
from app.telemetry import logs

#: Seconds between two fetches for the sake of unknown keys, and after a failed one (A2).
REFETCH_AFTER = 30.0

#: Seconds that one fetch may take, from the name's lookup to the last byte.
FETCH_TIMEOUT = 5.0

MAX_DOCUMENT_BYTES = 256 * 1024

#: A token without `kid` is tried with every key: their number bounds what a forged one costs.
MAX_KEYS = 64

Fetch = Callable[[str], Awaitable[bytes]]

log = logs.get("auth")


async def fetch_document(url: str) -> bytes:
    """The body behind `url`. Raises one of many errors; follows no redirect."""
    body = bytearray()
    async with (
        asyncio.timeout(FETCH_TIMEOUT),  # httpx's own timeouts are for each read: a trickle would last for ever
        httpx.AsyncClient(timeout=FETCH_TIMEOUT, verify=_tls()) as client,
        client.stream("GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"}) as response,
    ):
        if response.status_code != 200:
            raise ValueError(f"answered {response.status_code}")
        async for chunk in response.aiter_raw():  # raw: a small compressed body may hide an endless one
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError(f"larger than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(body)


@cache
def _tls() -> SSLContext:
    return httpx.create_ssl_context()  # reads all root certificates: 20 ms that no loop should lose twice


def read_keys(document: bytes) -> tuple[TokenKey, ...]:
    """The keys of a JWKS (RFC 7517 section 5) that can verify tokens; others are ignored. Raises ValueError."""
    try:
        members = msgspec.json.decode(document, type=dict[str, msgspec.Raw])["keys"]
        keys = msgspec.json.decode(members, type=list[object])
    except (msgspec.MsgspecError, KeyError, RecursionError):
        raise ValueError("not a JWKS") from None
    return tuple(key for document in keys[:MAX_KEYS] if (key := TokenKey.from_jwk(document)))


class Jwks:
    """The keys of one URL. A fetch that fails leaves the keys as they are."""

    def __init__(
        self, url: str, ttl: float, *, fetch: Fetch = fetch_document, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._ttl = ttl
        self._fetch = fetch
        self._clock = clock
        self._keys: tuple[TokenKey, ...] = ()
        self._fetched_at = -math.inf  # when the keys at hand came
        self._asked_at = -math.inf  # when the last fetch began, also one that failed
        self._fetching: asyncio.Task[bool] | None = None

    def candidates(self, algorithm: str, kid: str | None) -> list[TokenKey]:
        """The keys at hand that may have signed a token with this header."""
        return [key for key in self._keys if key.may_have_signed(algorithm, kid)]

    def worth_asking(self, *, known: bool) -> bool:
        """Whether a token should wait for `refresh`. `known`: whether there are candidates for it.

        With none, at most one fetch in 30 s (A2); with some, when the keys are older than the ttl."""
        if known and self._clock() - self._fetched_at < self._ttl:
            return False
        if self._fetching is not None:
            return True
        pause = min(self._ttl, REFETCH_AFTER) if known else REFETCH_AFTER
        return self._clock() - self._asked_at >= pause

    async def refresh(self) -> bool:
        """Fetches, all callers together once; whether it succeeded. Never raises, takes at most FETCH_TIMEOUT."""
        if self._fetching is None:
            self._asked_at = self._clock()
            self._fetching = asyncio.create_task(self._refresh(), name="jwks")
        return await asyncio.shield(self._fetching)  # a client that leaves must not end the fetch of the others

    async def _refresh(self) -> bool:
        try:
            self._keys = read_keys(await self._fetch(self._url))
        except Exception as error:  # whatever it is, the keys at hand go on being used
            log.warning("jwks fetch failed", error=repr(error), keys=len(self._keys))
            return False
        else:
            self._fetched_at = self._clock()
            log.info("jwks fetched", keys=len(self._keys))
            return True
        finally:
            self._fetching = None

    async def close(self) -> None:
        """Ends a fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
