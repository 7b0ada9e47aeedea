"""Connection tokens: who may sign them, what they may say, and that nothing else passes (A2, N9)."""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from app.auth.keys import TokenKey
from app.auth.permissions import Claims
from app.auth.signed_token import MAX_TOKEN_BYTES, InvalidToken, SignedToken
from app.auth.tokens import ExpiredToken, TokenVerifier, sign
from app.settings import Settings, SettingsError, load
from tests.support.forgery import ALGORITHMS, SECRET, Forge, encoded

NOW = 1_800_000_000.0

Pem = Callable[..., str]


@pytest.fixture
def pem(tmp_path: Path) -> Pem:
    """Writes a key's PEM file."""

    def write(key: Key, *, private: bool = False) -> str:
        assert not isinstance(key, OctKey)
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.pem"
        file.write_bytes(key.as_pem(private=private))
        return str(file)

    return write


def verifier(**settings: Any) -> TokenVerifier:
    return TokenVerifier(load(**{"token_hmac_secret": [SECRET]} | settings), now=lambda: NOW)


def verified(token: str, **settings: Any) -> Claims:
    claims = verifier(**settings).verify_now(token)
    assert claims is not None
    return claims


def refusal(token: str, **settings: Any) -> str:
    with pytest.raises(InvalidToken) as refused:
        verifier(**settings).verify_now(token)
    return str(refused.value)


class TestSignatures:
    @pytest.mark.parametrize("alg", ALGORITHMS)
    async def test_of_every_algorithm(self, forge: Forge, keys: dict[str, Key], pem: Pem, alg: str) -> None:
        public = [pem(keys[alg]) for alg in ALGORITHMS if alg != "HS256"]
        token = forge({"sub": "u1"}, alg)
        assert verified(token, token_public_keys=public) == Claims("u1")
        assert await verifier(token_public_keys=public).verify(token) == Claims("u1")

    @pytest.mark.parametrize("alg", ALGORITHMS)
    def test_by_strangers_are_refused(self, forge: Forge, keys: dict[str, Key], pem: Pem, alg: str) -> None:
        public = [pem(keys[alg]) for alg in ALGORITHMS if alg != "HS256"]
        stranger = {
            "HS256": OctKey.import_key("another-secret-of-these-tests-2"),
            "RS256": RSAKey.generate_key(2048),
            "ES256": ECKey.generate_key("P-256"),
            "EdDSA": OKPKey.generate_key("Ed25519"),
        }[alg]
        assert "not signed by a key" in refusal(forge({"sub": "u1"}, alg, stranger), token_public_keys=public)

    def test_of_every_secret_pass_and_the_first_one_signs(self, forge: Forge) -> None:  # N9
        new, old = "the-new-secret-of-these-tests-3", "the-old-secret-of-these-tests-4"
        settings = load(token_hmac_secret=[new, old])
        for secret in (new, old):
            token = forge({"sub": "u1"}, "HS256", OctKey.import_key(secret))
            assert TokenVerifier(settings).verify_now(token) == Claims("u1")
        only_new = TokenVerifier(load(token_hmac_secret=[new]))
        own = only_new.verify_now(sign(settings, "u1", ttl=None))
        assert own is not None
        assert own.user == "u1"

    def test_ed25519_has_two_names(self, forge: Forge, keys: dict[str, Key], pem: Pem) -> None:  # RFC 9864
        token = forge({"sub": "u1"}, "Ed25519", keys["EdDSA"])
        assert verified(token, token_public_keys=[pem(keys["EdDSA"])]) == Claims("u1")

    def test_a_kid_says_nothing_about_keys_that_have_none(self, forge: Forge) -> None:
        assert verified(forge({"sub": "u1"}, kid="any")) == Claims("u1")

    def test_unknown_header_members_are_ignored(self, forge: Forge) -> None:  # RFC 7515 section 4
        assert verified(forge({"sub": "u1"}, typ="JWT", tenant="x")) == Claims("u1")

    @pytest.mark.parametrize("field", [0, 1, 2])
    def test_every_changed_part_is_noticed(self, forge: Forge, field: int) -> None:
        parts = forge({"sub": "u1", "x": "y" * 20}).split(".")
        flipped = "B" if parts[field][8] == "A" else "A"
        parts[field] = parts[field][:8] + flipped + parts[field][9:]
        assert refusal(".".join(parts))


class TestAlgorithmConfusion:
    """The algorithm belongs to the key, never to the token's header (A2)."""

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "nOnE"])
    def test_no_signature_at_all(self, alg: str) -> None:
        head, body = encoded(json.dumps({"alg": alg}).encode()), encoded(b'{"sub":"u1"}')
        assert refusal(f"{head}.{body}.")
        assert refusal(f"{head}.{body}.{encoded(b'x')}")

    @pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
    def test_a_public_key_is_no_secret(self, keys: dict[str, Key], pem: Pem, alg: str) -> None:
        file = pem(keys[alg])
        head, body = encoded(json.dumps({"alg": "HS256"}).encode()), encoded(b'{"sub":"u1"}')
        signed = f"{head}.{body}"
        for secret in (Path(file).read_bytes(), Path(file).read_bytes().strip()):
            signature = encoded(hmac.new(secret, signed.encode(), hashlib.sha256).digest())
            assert "not signed by a key" in refusal(f"{signed}.{signature}", token_public_keys=[file])

    @pytest.mark.parametrize("alg", ["HS384", "HS512"])
    def test_other_algorithms_with_the_right_secret(self, forge: Forge, keys: dict[str, Key], alg: str) -> None:
        assert "not signed by a key" in refusal(forge({"sub": "u1"}, alg, keys["HS256"]))

    @pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256"])
    def test_other_algorithms_with_the_right_key(self, forge: Forge, keys: dict[str, Key], pem: Pem, alg: str) -> None:
        token = forge({"sub": "u1"}, alg, keys["RS256"])
        assert "not signed by a key" in refusal(token, token_public_keys=[pem(keys["RS256"])])

    def test_a_key_that_the_token_brings_along(self, forge: Forge) -> None:
        own = ECKey.generate_key("P-256")
        assert "not signed by a key" in refusal(forge({"sub": "u1"}, "ES256", own, jwk=own.as_dict(private=False)))

    @pytest.mark.parametrize("alg", ["HS512", "RS256", "none"])
    def test_a_key_never_verifies_by_another_algorithm(self, forge: Forge, keys: dict[str, Key], alg: str) -> None:
        token = SignedToken.read(forge({"sub": "u1"}, alg, keys.get(alg, keys["HS256"])))
        key = TokenKey.from_secret(SECRET)
        assert not token.may_be_of(key)
        assert not key.signed(token.message, token.signature)

    @pytest.mark.parametrize(
        ("header", "body"),
        [
            ({"crit": ["exp"], "exp": 1}, encoded(b'{"sub":"u1"}')),
            ({"b64": False, "crit": ["b64"]}, '{"sub":"u1"}'),  # not for JWTs: RFC 7797 section 7
        ],
    )
    def test_extensions_that_must_be_understood(self, header: dict[str, object], body: str) -> None:
        head = encoded(json.dumps({"alg": "HS256", **header}).encode())
        signed = f"{head}.{body}"
        assert refusal(f"{signed}.{encoded(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())}")


class TestKeyFiles:
    def test_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"CARILLON_TOKEN_PUBLIC_KEYS: .*none\.pem: No such file"):
            verifier(token_public_keys=[str(tmp_path / "none.pem")])

    @pytest.mark.parametrize(
        "content", [b"", b"text", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff\x00"]
    )
    def test_that_hold_no_key(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "key.pem"
        file.write_bytes(content)
        with pytest.raises(SettingsError, match="not the PEM of a public key"):
            verifier(token_public_keys=[str(file)])

    def test_with_private_keys_do_not_belong_here(self, keys: dict[str, Key], pem: Pem) -> None:
        with pytest.raises(SettingsError, match="not the PEM of a public key"):
            verifier(token_public_keys=[pem(keys["ES256"], private=True)])

    @pytest.mark.parametrize("key", [ECKey.generate_key("P-384"), OKPKey.generate_key("X25519")])
    def test_of_kinds_that_have_no_algorithm_here(self, pem: Pem, key: Key) -> None:
        with pytest.raises(SettingsError, match="RSA of at least 2048 bits, P-256 or Ed25519"):
            verifier(token_public_keys=[pem(key)])

    @pytest.mark.filterwarnings("ignore:Key size should be")
    def test_with_short_rsa_keys(self, pem: Pem) -> None:
        with pytest.raises(SettingsError, match="RSA of at least 2048 bits"):
            verifier(token_public_keys=[pem(RSAKey.generate_key(1024))])

    def test_a_public_key_given_as_a_secret(self, keys: dict[str, Key], pem: Pem) -> None:
        public = Path(pem(keys["RS256"])).read_text()
        with pytest.raises(SettingsError, match=r"CARILLON_TOKEN_HMAC_SECRET: .*public keys"):
            verifier(token_hmac_secret=[public])


class TestClaims:
    def test_rights(self, forge: Forge) -> None:
        token = forge({"sub": "u1", "exp": NOW + 60, "rooms": ["chat:*", "news"], "publish": ["chat:lobby"]})
        assert verified(token) == Claims("u1", NOW + 60, ("chat:*", "news"), ("chat:lobby",))

    @pytest.mark.parametrize("value", ["chat:*,news", " chat:* , news ,", ["chat:*", "news"], ["chat:*", "", " news"]])
    def test_rights_as_list_or_with_commas(self, forge: Forge, value: object) -> None:
        claims = verified(forge({"sub": "u1", "rooms": value, "publish": value}))
        assert claims.rooms == claims.publish == ("chat:*", "news")

    def test_centrifugal_calls_rooms_channels(self, forge: Forge) -> None:
        assert verified(forge({"sub": "u1", "channels": ["news"]})).rooms == ("news",)
        assert verified(forge({"sub": "u1", "channels": ["news"], "rooms": []})).rooms == ()

    def test_rights_that_are_not_given_are_none(self, forge: Forge) -> None:
        claims = verified(forge({"sub": "u1", "rooms": None, "unknown": {"a": [1]}}))
        assert not claims.may_subscribe("lobby")
        assert not claims.may_publish("lobby")

    def test_what_a_token_can_be_revoked_by_is_kept(self, forge: Forge) -> None:
        claims = verified(forge({"sub": "u1", "jti": "t1", "iat": 1000}))
        assert (claims.jti, claims.issued_at) == ("t1", 1000)

    def test_sessions_with_equal_rights_share_them(self, forge: Forge) -> None:
        first, second = (
            verified(forge({"sub": "u1", "jti": str(n), "rooms": ["chat:*"], "publish": "chat:*"})) for n in range(2)
        )
        assert first.user is second.user
        assert first.rooms is second.rooms is first.publish

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            ({}, "missing required field `sub`"),
            ({"sub": ""}, "sub must have 1 to 255 characters"),
            ({"sub": "x" * 256}, "sub must have 1 to 255 characters"),
            ({"sub": 5}, "Expected `str`, got `int` - at `$.sub`"),
            ({"sub": "u", "jti": 5}, "Expected `str | null`, got `int` - at `$.jti`"),
            ({"sub": "u", "iat": "now"}, "at `$.iat`"),
            ({"sub": "u", "iat": 10**400}, "iat is out of range"),
            ({"sub": None}, "Expected `str`, got `null` - at `$.sub`"),
            ({"sub": "u", "exp": "soon"}, "`$.exp`"),
            ({"sub": "u", "exp": True}, "`$.exp`"),
            ({"sub": "u", "exp": 10**400}, "exp is out of range"),
            ({"sub": "u", "nbf": 10**400}, "nbf is out of range"),
            ({"sub": "u", "rooms": [1]}, "`$.rooms[0]`"),
            ({"sub": "u", "publish": {"a": 1}}, "`$.publish`"),
            ([], "Expected `object`, got `array`"),
            (b"", "the payload is not JSON"),
            (b"{", "the payload is not JSON"),
            (b'{"sub": "\xff"}', "the payload is not JSON"),
            (b'{"sub": "\\ud800"}', "the payload is not JSON"),
            (b'{"sub": "u", "exp": NaN}', "the payload is not JSON"),
        ],
    )
    def test_that_are_malformed(self, forge: Forge, payload: object, reason: str) -> None:
        assert reason in refusal(forge(payload))

    def test_nested_deeply_are_refused_or_read(self, forge: Forge) -> None:
        """How deep is too deep differs between versions of Python; an exception of its own it never is."""
        token = forge(b'{"sub": "u", "x": ' + b"[" * 2000 + b"]" * 2000 + b"}")
        try:
            claims: Claims | None = verified(token)
        except InvalidToken:
            claims = None
        assert claims in (None, Claims("u"))


class TestTime:
    """With the default leeway of 5 s."""

    @pytest.mark.parametrize("left", [60, 0.5, 0, -4.9])
    def test_before_exp_and_a_little_after(self, forge: Forge, left: float) -> None:
        assert verified(forge({"sub": "u1", "exp": NOW + left})).expires_at == NOW + left

    @pytest.mark.parametrize("left", [-5, -3600, -NOW])
    def test_after_exp(self, forge: Forge, left: float) -> None:
        with pytest.raises(ExpiredToken):
            verifier().verify_now(forge({"sub": "u1", "exp": NOW + left}))

    def test_without_exp(self, forge: Forge) -> None:
        assert verified(forge({"sub": "u1"})).expires_at is None

    def test_before_nbf(self, forge: Forge) -> None:
        assert verified(forge({"sub": "u1", "nbf": NOW + 5}))
        assert "nbf" in refusal(forge({"sub": "u1", "nbf": NOW + 5.1}))

    def test_the_leeway_is_a_setting(self, forge: Forge) -> None:
        token = forge({"sub": "u1", "exp": NOW - 50})
        assert verified(token, token_leeway=60)
        with pytest.raises(ExpiredToken):
            verifier(token_leeway=0).verify_now(forge({"sub": "u1", "exp": NOW}))


class TestAudienceAndIssuer:
    @pytest.mark.parametrize("aud", ["gateway", ["other", "gateway"]])
    def test_the_audience_is_ours(self, forge: Forge, aud: object) -> None:
        assert verified(forge({"sub": "u1", "aud": aud}), token_audience="gateway")

    @pytest.mark.parametrize("claims", [{"aud": "gate"}, {"aud": ["other"]}, {"aud": []}, {}])
    def test_the_audience_is_another(self, forge: Forge, claims: dict[str, object]) -> None:
        assert "(aud)" in refusal(forge({"sub": "u1", **claims}), token_audience="gateway")

    @pytest.mark.parametrize("claims", [{"iss": "https://a.example"}, {}])
    def test_the_issuer_is_another(self, forge: Forge, claims: dict[str, object]) -> None:
        assert "(iss)" in refusal(forge({"sub": "u1", **claims}), token_issuer="https://b.example")

    def test_the_issuer_is_ours(self, forge: Forge) -> None:
        assert verified(forge({"sub": "u1", "iss": "https://b.example"}), token_issuer="https://b.example")

    def test_neither_matters_where_none_is_set(self, forge: Forge) -> None:
        assert verified(forge({"sub": "u1", "aud": "x", "iss": "y"}))


class TestBounds:
    def test_a_token_is_as_long_as_it_may_be(self, forge: Forge) -> None:
        room = forge({"sub": "u1", "x": ""})
        padding = "y" * ((MAX_TOKEN_BYTES - len(room)) * 3 // 4 - 3)
        assert verified(forge({"sub": "u1", "x": padding})) == Claims("u1")

    def test_longer_ones_are_not_even_looked_at(self, forge: Forge) -> None:
        assert refusal(forge({"sub": "u1", "x": "y" * 7000})) == "longer than 8192 bytes"

    @pytest.mark.parametrize(
        "token",
        ["", ".", "..", "...", "a.b.c", "a.b.c.d.e", "é.é.é", "\ud800", "\x00", "eyJhbGciOiJIUzI1NiJ9", " . . "],
    )
    def test_what_is_no_token(self, token: str) -> None:
        assert refusal(token) == "not a signed JWT"

    @pytest.mark.parametrize(
        "header",
        [b"[]", b'"alg"', b'["alg"]', b"null", b"5", b"{}", b'{"alg":null}', b'{"alg":["HS256"]}', b'{"alg":{}}',
         b'{"alg":"HS256","kid":5}', b'{"alg":"HS256","crit":5}', b'{"alg":"HS256","crit":[[]]}',
         b'{"alg":"HS256","b64":false}', b'{"alg":"HS256","typ":5}', b"[" * 380, b'{"alg":' * 50],
    )  # fmt: skip
    def test_headers_that_make_no_sense(self, header: bytes) -> None:
        signed = f"{encoded(header)}.{encoded(json.dumps({'sub': 'u1'}).encode())}"
        assert refusal(f"{signed}.{encoded(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())}")


class TestFuzzing:
    """Whatever comes: claims or InvalidToken, nothing else, and nothing of it in the reason."""

    @given(st.text() | st.lists(st.text("abcXYZ_-019", max_size=12), min_size=3, max_size=3).map(".".join))
    def test_any_text(self, token: str) -> None:
        with pytest.raises(InvalidToken):
            verifier().verify_now(token)

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
    names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c", "zip", "enc"])

    @given(st.dictionaries(names, json_values | st.just("HS256")) | json_values)
    def test_any_header(self, header: object) -> None:
        signed = f"{encoded(json.dumps(header).encode())}.{encoded(b'{}')}"
        signature = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
        with pytest.raises(InvalidToken):  # at the latest for its empty payload
            verifier().verify_now(f"{signed}.{encoded(signature)}")

    @hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.dictionaries(
            st.sampled_from(["sub", "exp", "nbf", "iss", "aud", "rooms", "publish", "channels"]), json_values
        )
    )
    def test_any_claims(self, forge: Forge, claims: dict[str, object]) -> None:
        try:
            verified = verifier().verify_now(forge(claims))
        except InvalidToken:
            return
        assert verified is not None
        assert verified.user == claims["sub"]

    @pytest.mark.parametrize(
        "claims", [{"sub": ["needle"]}, {"sub": "u", "exp": "needle"}, {"sub": "needle" * 99}, {"needle": 1}, "needle"]
    )
    def test_no_value_is_in_a_reason(self, forge: Forge, claims: object) -> None:
        assert "needle" not in refusal(forge(claims, kid="needle"))


class TestSigning:
    def settings(self, **more: Any) -> Settings:
        return load(token_hmac_secret=[SECRET], **more)

    def test_what_is_signed_is_verified(self) -> None:
        settings = self.settings(token_audience="gateway", token_issuer="https://b.example")
        token = sign(settings, "u1", ["chat:*"], ["chat:lobby"], ttl=60)
        claims = TokenVerifier(settings).verify_now(token)
        assert claims is not None
        assert (claims.user, claims.rooms, claims.publish) == ("u1", ("chat:*",), ("chat:lobby",))
        assert claims.expires_at is not None

    def test_without_an_end(self) -> None:
        claims = TokenVerifier(self.settings()).verify_now(sign(self.settings(), "u1", ttl=None))
        assert claims is not None
        assert claims.expires_at is None

    def test_needs_a_secret(self) -> None:
        with pytest.raises(SettingsError, match="CARILLON_TOKEN_HMAC_SECRET"):
            sign(load(), "u1")
