"""Connection tokens: JWTs (RFC 7519) that say who a client is and which rooms it may use."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
from joserfc import jwt
from joserfc.jwk import OctKey

from app.auth.jwks import Fetch, Jwks, fetch_document
from app.auth.keys import HS256, TokenKey
from app.auth.permissions import Claims
from app.auth.signed_token import InvalidToken, SignedToken
from app.codes import INTERNAL, CommandError
from app.settings import Settings, SettingsError

#: OpenID Connect Core 1.0, section 2, on `sub`.
MAX_USER_LENGTH = 255


class ExpiredToken(InvalidToken):
    """The token was good until its `exp`; a new one is welcome."""


class KeysUnavailable(CommandError):
    """The key that signed the token cannot be had at the moment: nothing is known against the token; try again."""

    def __init__(self) -> None:
        super().__init__(INTERNAL, "the key of this token cannot be fetched at the moment")


class _Payload(msgspec.Struct):
    """The claims that mean something here; all others are ignored."""

    sub: str
    exp: int | float | None = None
    nbf: int | float | None = None
    iat: int | float | None = None
    jti: str | None = None
    iss: str | None = None
    aud: str | list[str] | None = None
    rooms: str | list[str] | None = None
    channels: str | list[str] | None = None  # what Centrifugal tokens call `rooms`
    publish: str | list[str] | None = None


_payload = msgspec.json.Decoder(_Payload)


class TokenVerifier:
    """Checks tokens with the keys of the settings: secrets, PEM files, and the JWKS behind a URL.

    Raises SettingsError where a key cannot be read; reaches for nothing remote before the first token needs it (N2).
    `fetch` gets the JWKS, `now` tells Unix time, `clock` the time that caching goes by."""

    def __init__(
        self,
        settings: Settings,
        *,
        fetch: Fetch = fetch_document,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = [TokenKey.from_secret(secret.get_secret_value()) for secret in settings.token_hmac_secret]
        self._keys += [TokenKey.from_pem(Path(name)) for name in settings.token_public_keys]
        url = settings.token_jwks_url
        self._jwks = Jwks(url, settings.token_jwks_ttl, fetch=fetch, clock=clock) if url else None
        self._audience = settings.token_audience
        self._issuer = settings.token_issuer
        self._leeway = settings.token_leeway
        self._now = now

    async def verify(self, token: str) -> Claims:
        """What the token says. Raises InvalidToken, ExpiredToken, or KeysUnavailable; waits only for a JWKS."""
        claims = self.verify_now(token)
        if claims is None:
            assert self._jwks is not None
            fetched = await self._jwks.refresh()
            claims = self._verify_by_jwks(self._jwks, SignedToken.read(token), fetched=fetched)
        return claims

    def verify_now(self, token: str) -> Claims | None:
        """The same without waiting; None where a JWKS has to be fetched first: call `verify`."""
        signed = SignedToken.read(token)
        if any(key.signed(signed.message, signed.signature) for key in self._keys if signed.may_be_of(key)):
            return self._claims(signed.payload)
        algorithm, kid = signed.algorithm, signed.kid
        if self._jwks is None or algorithm in HS256:
            _refuse_signature()
        if self._jwks.worth_asking(known=bool(self._jwks.candidates(algorithm, kid))):
            self._claims(signed.payload)  # what is refused anyhow is no reason to fetch
            return None
        return self._verify_by_jwks(self._jwks, signed, fetched=False)

    def _verify_by_jwks(self, jwks: Jwks, signed: SignedToken, *, fetched: bool) -> Claims:
        candidates = jwks.candidates(signed.algorithm, signed.kid)
        if any(key.signed(signed.message, signed.signature) for key in candidates):
            return self._claims(signed.payload)
        if candidates or fetched:
            _refuse_signature()
        raise KeysUnavailable  # a key made since the last fetch may have signed it

    def _claims(self, payload: bytes) -> Claims:
        try:
            said = _payload.decode(payload)
        except msgspec.ValidationError as error:
            raise InvalidToken(f"claims: {error}") from None  # names types and places, never values
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidToken("the payload is not JSON") from None
        now = self._now()
        if said.nbf is not None and _number("nbf", said.nbf) > now + self._leeway:
            raise InvalidToken("not valid yet (nbf)")
        expires_at = None if said.exp is None else _number("exp", said.exp)
        if expires_at is not None and expires_at <= now - self._leeway:
            raise ExpiredToken("expired")
        if self._issuer and said.iss != self._issuer:
            raise InvalidToken("the issuer (iss) is another one")
        if self._audience and self._audience not in _names(said.aud):
            raise InvalidToken("meant for another audience (aud)")
        if not 0 < len(said.sub) <= MAX_USER_LENGTH:
            raise InvalidToken(f"sub must have 1 to {MAX_USER_LENGTH} characters")
        rooms = said.channels if said.rooms is None else said.rooms
        issued_at = None if said.iat is None else _number("iat", said.iat)
        return Claims.shared(said.sub, expires_at, _patterns(rooms), _patterns(said.publish), said.jti, issued_at)

    async def close(self) -> None:
        """Ends a fetch under way."""
        if self._jwks is not None:
            await self._jwks.close()


def sign(
    settings: Settings, user: str, rooms: str | list[str] = "", publish: str | list[str] = "", ttl: float | None = 3600
) -> str:
    """A token signed with the first secret (N9), for `python -m app token`, the demo and tests.

    `rooms`, `publish`: patterns, as a list or with commas. `ttl`: seconds until it expires; None: never. Raises
    SettingsError where there is no secret."""
    if not settings.token_hmac_secret:
        raise SettingsError("CARILLON_TOKEN_HMAC_SECRET: needed to sign a token")
    now = int(time.time())
    claims: dict[str, object] = {"sub": user, "iat": now, "rooms": _patterns(rooms), "publish": _patterns(publish)}
    if ttl is not None:
        claims["exp"] = now + ttl
    if settings.token_issuer:
        claims["iss"] = settings.token_issuer
    if settings.token_audience:
        claims["aud"] = settings.token_audience
    key = TokenKey.from_secret(settings.token_hmac_secret[0].get_secret_value()).key
    assert isinstance(key, OctKey)
    return jwt.encode({"alg": "HS256"}, claims, key)


def _refuse_signature() -> NoReturn:
    raise InvalidToken("not signed by a key of this deployment")


def _number(claim: str, value: float) -> float:
    """A NumericDate (RFC 7519 section 2) as seconds."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidToken(f"{claim} is out of range")
    return number


def _names(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _patterns(value: str | list[str] | None) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value or []
    return [part.strip() for part in parts if part.strip()]
