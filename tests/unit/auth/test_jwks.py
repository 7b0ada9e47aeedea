"""The JWKS behind a URL: fetched when needed, once for all, at most once in 30 s for unknown keys (A2, N2)."""

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from app.auth import jwks
from app.auth.jwks import MAX_DOCUMENT_BYTES, MAX_KEYS, fetch_document, read_keys
from app.auth.keys import TokenKey
from app.auth.permissions import Claims
from app.auth.signed_token import InvalidToken
from app.auth.tokens import ExpiredToken, KeysUnavailable, TokenVerifier
from app.settings import load
from tests.support.clock import Clock
from tests.support.forgery import ALGORITHMS, Forge
from tests.support.http_server import SilentHandler, serving_in_thread

PUBLIC = [alg for alg in ALGORITHMS if alg != "HS256"]
NOW = 1_800_000_000.0


def jwk(key: Key, **members: object) -> dict[str, object]:
    return {**key.as_dict(private=False), **members}


def document(*members: object) -> bytes:
    return json.dumps({"keys": members}).encode()


class Publisher:
    """Stands behind the URL: counts fetches, and can be held up or fail."""

    def __init__(self, *members: object) -> None:
        self.body = document(*members)
        self.fetches = 0
        self.broken = False
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, url: str) -> bytes:
        assert url == "https://issuer.example/jwks"
        self.fetches += 1
        self.asked.set()
        await self.open.wait()
        if self.broken:
            raise ConnectionError("away")
        return self.body


@pytest.fixture
def clock() -> Clock:
    return Clock()


def verifier(publisher: Publisher, clock: Clock, **settings: Any) -> TokenVerifier:
    settings = {"token_jwks_url": "https://issuer.example/jwks"} | settings
    return TokenVerifier(load(**settings), fetch=publisher, now=lambda: NOW, clock=clock)


class TestCaching:
    async def test_nothing_is_fetched_before_a_token_needs_it(self, keys: dict[str, Key], clock: Clock) -> None:  # N2
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        verifier(publisher, clock)
        await asyncio.sleep(0)
        assert publisher.fetches == 0

    @pytest.mark.parametrize("alg", PUBLIC)
    async def test_the_first_token_fetches_the_others_do_not(
        self, forge: Forge, keys: dict[str, Key], clock: Clock, alg: str
    ) -> None:
        publisher = Publisher(*(jwk(keys[alg], kid=alg) for alg in PUBLIC))
        tokens = verifier(publisher, clock)
        token = forge({"sub": "u1"}, alg, kid=alg)
        assert tokens.verify_now(token) is None
        assert await tokens.verify(token) == Claims("u1")
        assert tokens.verify_now(token) == Claims("u1")
        assert publisher.fetches == 1

    async def test_many_at_once_share_one_fetch(self, forge: Forge, keys: dict[str, Key], clock: Clock) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        publisher.open.clear()
        tokens = verifier(publisher, clock)
        waiting = [asyncio.create_task(tokens.verify(forge({"sub": f"u{n}"}, "ES256", kid="a"))) for n in range(5)]
        await publisher.asked.wait()
        publisher.open.set()
        assert await asyncio.gather(*waiting) == [Claims(f"u{n}") for n in range(5)]
        assert publisher.fetches == 1

    async def test_one_that_leaves_while_waiting_hurts_nobody(
        self, forge: Forge, keys: dict[str, Key], clock: Clock
    ) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        publisher.open.clear()
        tokens = verifier(publisher, clock)
        first, second = (asyncio.create_task(tokens.verify(forge({"sub": "u"}, "ES256", kid="a"))) for _ in range(2))
        await publisher.asked.wait()
        first.cancel()
        await asyncio.wait([first])
        publisher.open.set()
        assert await second == Claims("u")

    async def test_keys_are_fetched_again_after_their_time(
        self, forge: Forge, keys: dict[str, Key], clock: Clock
    ) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        tokens = verifier(publisher, clock, token_jwks_ttl=300)
        token = forge({"sub": "u1"}, "ES256", kid="a")
        await tokens.verify(token)
        publisher.body = document()  # the key was withdrawn
        clock.now += 299
        assert await tokens.verify(token)
        clock.now += 1
        with pytest.raises(InvalidToken, match="not signed"):
            await tokens.verify(token)
        assert publisher.fetches == 2

    async def test_closing_ends_a_fetch_under_way(self, forge: Forge, keys: dict[str, Key], clock: Clock) -> None:
        publisher = Publisher()
        publisher.open.clear()
        tokens = verifier(publisher, clock)
        waiting = asyncio.create_task(tokens.verify(forge({"sub": "u"}, "ES256", kid="a")))
        await publisher.asked.wait()
        await tokens.close()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await tokens.close()


class TestRotation:
    async def test_a_new_key_is_fetched_when_it_is_first_used(
        self, forge: Forge, keys: dict[str, Key], clock: Clock
    ) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="old"))
        tokens = verifier(publisher, clock)
        await tokens.verify(forge({"sub": "u1"}, "ES256", kid="old"))
        new = ECKey.generate_key("P-256")
        publisher.body = document(jwk(keys["ES256"], kid="old"), jwk(new, kid="new"))
        clock.now += 30
        assert await tokens.verify(forge({"sub": "u2"}, "ES256", new, kid="new")) == Claims("u2")
        assert publisher.fetches == 2

    async def test_unknown_keys_fetch_once_in_30_s(self, forge: Forge, keys: dict[str, Key], clock: Clock) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        tokens = verifier(publisher, clock)
        for second in range(60):
            with pytest.raises((InvalidToken, KeysUnavailable)):
                await tokens.verify(forge({"sub": "u"}, "ES256", kid=f"unknown-{second}"))
            clock.now += 1
        assert publisher.fetches == 2

    async def test_an_unknown_key_is_refused_for_good_only_by_a_fetch(
        self, forge: Forge, keys: dict[str, Key], clock: Clock
    ) -> None:
        tokens = verifier(Publisher(jwk(keys["ES256"], kid="a")), clock)
        unknown = forge({"sub": "u"}, "ES256", kid="unknown")
        with pytest.raises(InvalidToken):
            await tokens.verify(unknown)
        with pytest.raises(KeysUnavailable) as refused:  # the key may have been made since: come again
            await tokens.verify(unknown)
        assert refused.value.error.temporary

    async def test_tokens_that_are_refused_anyhow_fetch_nothing(self, forge: Forge, clock: Clock) -> None:
        publisher = Publisher()
        tokens = verifier(publisher, clock, token_audience="gateway")
        with pytest.raises(ExpiredToken):
            await tokens.verify(forge({"sub": "u", "exp": 1}, "ES256", kid="a"))
        with pytest.raises(InvalidToken):
            await tokens.verify(forge({"sub": "u"}, "ES256", kid="a"))
        with pytest.raises(InvalidToken):
            await tokens.verify(forge({"sub": "u", "aud": "gateway"}, "HS256", kid="a"))
        assert publisher.fetches == 0

    async def test_a_wrong_signature_under_a_known_name_fetches_nothing(
        self, forge: Forge, keys: dict[str, Key], clock: Clock
    ) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        tokens = verifier(publisher, clock)
        await tokens.verify(forge({"sub": "u"}, "ES256", kid="a"))
        clock.now += 100
        with pytest.raises(InvalidToken):
            await tokens.verify(forge({"sub": "u"}, "ES256", ECKey.generate_key("P-256"), kid="a"))
        assert publisher.fetches == 1


class TestOutages:
    async def test_before_the_first_fetch_nothing_is_known_against_a_token(
        self, forge: Forge, keys: dict[str, Key], clock: Clock
    ) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        publisher.broken = True
        tokens = verifier(publisher, clock)
        token = forge({"sub": "u"}, "ES256", kid="a")
        for _ in range(3):
            with pytest.raises(KeysUnavailable):
                await tokens.verify(token)
        assert publisher.fetches == 1
        publisher.broken = False
        clock.now += 30
        assert await tokens.verify(token) == Claims("u")

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys":{}}', b"\xff", b"[" * 100_000])
    async def test_a_failing_fetch_keeps_the_keys(
        self, forge: Forge, keys: dict[str, Key], clock: Clock, body: bytes
    ) -> None:
        publisher = Publisher(jwk(keys["ES256"], kid="a"))
        tokens = verifier(publisher, clock, token_jwks_ttl=60)
        token = forge({"sub": "u"}, "ES256", kid="a")
        await tokens.verify(token)
        publisher.body = body
        clock.now += 10_000
        assert await tokens.verify(token) == Claims("u")
        assert await tokens.verify(token) == Claims("u")
        assert publisher.fetches == 2  # and it is not tried again at once

    async def test_other_keys_need_no_jwks(self, forge: Forge, clock: Clock) -> None:
        publisher = Publisher()
        publisher.open.clear()
        tokens = verifier(publisher, clock, token_hmac_secret=["the-first-secret-of-these-tests-1"])
        assert await tokens.verify(forge({"sub": "u"})) == Claims("u")
        assert publisher.fetches == 0


class TestDocument:
    def algorithms(self, *members: object) -> list[set[str]]:
        return [set(key.algorithms) for key in read_keys(document(*members))]

    def test_keys_of_every_kind(self, keys: dict[str, Key]) -> None:
        members = [jwk(keys[alg]) for alg in PUBLIC]
        assert self.algorithms(*members) == [{"RS256"}, {"ES256"}, {"EdDSA", "Ed25519"}]

    def test_what_cannot_be_used_is_ignored(self, keys: dict[str, Key]) -> None:
        good = jwk(keys["ES256"], kid="good")
        weak = jwk(RSAKey.generate_key(2048))
        assert self.algorithms(
            OctKey.generate_key(256).as_dict(),  # what stands in a public document is no secret
            keys["ES256"].as_dict(private=True),
            jwk(ECKey.generate_key("P-384")),
            jwk(OKPKey.generate_key("X25519")),
            {**weak, "n": "AQAB"},
            {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            {"kty": "RSA"},
            {"kty": "new"},
            {"kty": ["RSA"]},
            {},
            "text",
            None,
            {**good, "use": "enc"},
            {**good, "use": ["sig"]},
            {**good, "key_ops": ["sign"]},
            {**good, "kid": 5},
            good,
        ) == [{"ES256"}]

    @pytest.mark.parametrize(("alg", "usable"), [("RS256", True), ("RS512", False), ("PS256", False), ("HS256", False)])
    def test_the_alg_of_a_key_restricts(self, keys: dict[str, Key], alg: str, usable: bool) -> None:
        assert bool(self.algorithms(jwk(keys["RS256"], alg=alg))) is usable

    @pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
    def test_ed25519_has_two_names(self, keys: dict[str, Key], alg: str) -> None:
        assert self.algorithms(jwk(keys["EdDSA"], alg=alg)) == [{"EdDSA", "Ed25519"}]

    def test_the_number_of_keys_is_bounded(self, keys: dict[str, Key]) -> None:
        assert len(read_keys(document(*[jwk(keys["EdDSA"])] * (MAX_KEYS + 1)))) == MAX_KEYS

    def test_a_kid_narrows_the_choice(self, keys: dict[str, Key]) -> None:
        key = TokenKey.from_jwk(jwk(keys["ES256"], kid="a"))
        assert key is not None
        assert key.may_have_signed("ES256", "a")
        assert key.may_have_signed("ES256", None)
        assert not key.may_have_signed("ES256", "b")
        assert not key.may_have_signed("RS256", "a")


class _Handler(SilentHandler):
    def do_GET(self) -> None:
        match self.path:
            case "/jwks":
                self.answer(200, b'{"keys":[]}')
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "/jwks")
                self.end_headers()
            case "/endless":
                self.answer(200, b" " * (MAX_DOCUMENT_BYTES + 1))
            case "/compressed":
                self.answer(200, gzip.compress(b'{"keys":[]}'), encoding="gzip")
            case "/trickle":
                self.send_response(200)
                self.end_headers()
                while not self.server.stopping.wait(0.01):  # type: ignore[attr-defined]
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return
            case _:
                self.answer(503, b"{}")

    def answer(self, status: int, body: bytes, encoding: str = "identity") -> None:
        self.send_response(status)
        self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return


class TestFetching:
    """Over HTTP, from a real server."""

    @pytest.fixture
    def url(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.stopping = threading.Event()  # type: ignore[attr-defined]
        with serving_in_thread(server):
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.stopping.set()  # type: ignore[attr-defined]

    async def test_the_document(self, url: str) -> None:
        assert await fetch_document(f"{url}/jwks") == b'{"keys":[]}'

    @pytest.mark.parametrize(("path", "reason"), [("/away", "answered 503"), ("/moved", "answered 302")])
    async def test_other_answers(self, url: str, path: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            await fetch_document(url + path)

    async def test_too_much(self, url: str) -> None:
        with pytest.raises(ValueError, match="larger than"):
            await fetch_document(f"{url}/endless")

    async def test_nothing_is_decompressed(self, url: str) -> None:  # a small body may hide an endless one
        assert gzip.decompress(await fetch_document(f"{url}/compressed")) == b'{"keys":[]}'

    async def test_too_slow(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.1)
        with pytest.raises(TimeoutError):
            await fetch_document(f"{url}/trickle")

    async def test_nobody_there(self, forge: Forge) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/jwks"
            with pytest.raises(KeysUnavailable):
                await TokenVerifier(load(token_jwks_url=url)).verify(forge({"sub": "u"}, "ES256", kid="a"))
