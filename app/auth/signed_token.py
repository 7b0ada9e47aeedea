"""The three parts of a JWT in JWS compact form (RFC 7515 section 7.1), read but not verified."""

import binascii
from functools import lru_cache
from typing import Self

import msgspec

from app.auth.keys import TokenKey

#: Looked at before anything else of a token.
MAX_TOKEN_BYTES = 8192

#: Deployments sign with few keys, so nearly all tokens begin alike. Headers of liars only push each other out.
KNOWN_HEADERS = 64

_TO_BASE64 = bytes.maketrans(b"-_+/", b"+/!!")  # the other alphabet's own characters are none of this one


class InvalidToken(Exception):
    """The token is refused. The text says why in words that hold nothing of the token."""


class SignedToken:
    """What a token is signed with, by its own words, and what was signed."""

    __slots__ = ("algorithm", "kid", "message", "payload", "signature")

    def __init__(self, algorithm: str, kid: str | None, payload: bytes, message: bytes, signature: bytes) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.payload = payload
        self.message = message
        self.signature = signature

    @classmethod
    def read(cls, token: str) -> Self:
        """Raises InvalidToken for what is not a JWT that is understood here."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"longer than {MAX_TOKEN_BYTES} bytes")
        try:
            message, _, signature = token.encode("ascii").rpartition(b".")
            head, _, payload = message.partition(b".")
            algorithm, kid = _header(head)
            return cls(algorithm, kid, _base64url(payload), message, _base64url(signature))
        except (ValueError, msgspec.DecodeError, RecursionError):
            raise InvalidToken("not a signed JWT") from None

    def may_be_of(self, key: TokenKey) -> bool:
        return key.may_have_signed(self.algorithm, self.kid)


def _base64url(data: bytes) -> bytes:
    """RFC 7515 section 2: no padding, no line breaks, nothing else. Raises ValueError."""
    if b"=" in data:
        raise ValueError("padding")
    return binascii.a2b_base64(data.translate(_TO_BASE64) + b"=" * (-len(data) % 4), strict_mode=True)


class _Header(msgspec.Struct):
    """What means something here (RFC 7515 section 4.1); other members are ignored."""

    alg: str
    kid: str | msgspec.UnsetType = msgspec.UNSET
    typ: str | msgspec.UnsetType = msgspec.UNSET
    #: No extension has a meaning here; section 4.1.11 says refuse. `b64` is one of them (RFC 7797).
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_header = msgspec.json.Decoder(_Header).decode


@lru_cache(KNOWN_HEADERS)
def _header(head: bytes) -> tuple[str, str | None]:
    """`alg` and `kid`. Raises ValueError, msgspec.DecodeError, InvalidToken."""
    try:
        header = _decode_header(_base64url(head))
    except msgspec.ValidationError as error:
        raise InvalidToken(f"header: {error}") from None  # names types and places, never values
    if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
        raise InvalidToken("its header asks for an extension")
    return header.alg, None if header.kid is msgspec.UNSET else header.kid
