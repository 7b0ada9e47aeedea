"""A key and a token for `tutorial_jwt`, made with the product's own JWT library."""

import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import OctKey, OKPKey


@dataclass(frozen=True)
class Credentials:
    #: What the peer is started with.
    environ: Mapping[str, str]
    #: Goes into `Peer.path`; valid for a day.
    token: str


def hs256() -> Credentials:
    secret = secrets.token_urlsafe(32)
    return _credentials("HS256", secret, OctKey.import_key(secret))


def eddsa() -> Credentials:
    key = OKPKey.generate_key("Ed25519")
    return _credentials("EdDSA", key.as_pem(private=False).decode(), key)


def _credentials(algorithm: str, told: str, key: OctKey | OKPKey) -> Credentials:
    claims = {"sub": "bench", "exp": int(time.time()) + 86_400}
    with warnings.catch_warnings():
        # RFC 9864 prefers another name for EdDSA; PyJWT knows this one.
        warnings.simplefilter("ignore", SecurityWarning)
        token = jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])
    return Credentials({"BENCH_JWT_ALGORITHM": algorithm, "BENCH_JWT_KEY": told}, token)
