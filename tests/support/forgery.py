"""Tokens made as freely as an attacker would: any header, any payload, any key."""

import base64
import json
import warnings
from collections.abc import Callable
from typing import Any

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import Key

SECRET = "the-first-secret-of-these-tests-1"
ALGORITHMS = ["HS256", "RS256", "ES256", "EdDSA"]

Forge = Callable[..., str]


def encoded(part: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def forger(keys: dict[str, Key]) -> Forge:
    """Makes `forge(payload, alg="HS256", key=None, **header)`; `keys` are the ones used where none is given."""
    registry = jws.JWSRegistry(algorithms=list(jws.JWSRegistry.algorithms), strict_check_header=False)

    def forge(payload: Any, alg: str = "HS256", key: Key | None = None, **header: object) -> str:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # joserfc warns of what the tests are about
            return jws.serialize_compact({"alg": alg, **header}, body, key or keys[alg], registry=registry)

    return forge
