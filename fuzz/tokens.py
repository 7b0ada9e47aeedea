"""Reading of tokens: claims, or InvalidToken in words that hold nothing of the token."""

import base64
import hashlib
import hmac

from app.auth.signed_token import InvalidToken
from app.auth.tokens import TokenVerifier
from app.settings import load

SECRET = "a-secret-of-the-tests-that-is-long-enough"
HEADER = b'{"alg":"HS256","typ":"JWT"}'

verifier = TokenVerifier(load(token_hmac_secret=SECRET))


def fuzz(data: bytes) -> None:
    """The first byte says what the rest is: a token, or signed as it should be, its payload or its header."""
    kind, rest = data[:1], data[1:]
    match kind:
        case b"p":
            token = signed(HEADER, rest)
        case b"h":
            token = signed(rest, b'{"sub":"ann"}')
        case _:
            token = rest.decode("latin-1")
    try:
        claims = verifier.verify_now(token)
    except InvalidToken as invalid:
        assert len(str(invalid)) < 500
        return
    assert kind in (b"p", b"h"), "nobody else knows the secret"
    assert claims is not None
    assert 0 < len(claims.user) <= 255
    claims.may_subscribe("chat:x")
    claims.may_publish("chat:x")


def signed(header: bytes, payload: bytes) -> str:
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    digest = hmac.digest(SECRET.encode(), text, hashlib.sha256)
    return (text + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()
