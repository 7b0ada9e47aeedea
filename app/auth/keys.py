"""A key that verifies connection tokens. The algorithm belongs to the key, never to the token's header (A2)."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from joserfc import jws
from joserfc.errors import InvalidKeyTypeError, JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey

from app.settings import SettingsError

HS256: Final = frozenset({"HS256"})
RS256: Final = frozenset({"RS256"})
ES256: Final = frozenset({"ES256"})
EDDSA: Final = frozenset({"EdDSA", "Ed25519"})  # RFC 9864 gave it the second name

#: joserfc's cryptography without its reading of headers, which costs more than the cryptography.
_VERIFIERS: Final = {
    algorithms: jws.JWSRegistry.algorithms[name]
    for algorithms, name in ((HS256, "HS256"), (RS256, "RS256"), (ES256, "ES256"), (EDDSA, "EdDSA"))
}


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A verification key, the names of the one algorithm it is for, and its own name where it has one."""

    algorithms: frozenset[str]
    key: Key
    kid: str | None = None

    @classmethod
    def from_secret(cls, secret: str) -> Self:
        """A secret of HS256 tokens. Raises SettingsError."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # the settings rule how short a secret may be
            try:
                return cls(HS256, OctKey.import_key(secret))
            except ValueError as error:  # empty, or a public key in disguise
                raise SettingsError(f"CARILLON_TOKEN_HMAC_SECRET: {error}") from None

    @classmethod
    def from_pem(cls, path: Path) -> Self:
        """The public key in a PEM file. Raises SettingsError."""
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"CARILLON_TOKEN_PUBLIC_KEYS: {path}: {error.strerror}") from None
        key = _read_pem(pem)
        algorithms = _algorithms_of(key) if key else None
        if key is None or algorithms is None:
            raise SettingsError(
                f"CARILLON_TOKEN_PUBLIC_KEYS: {path}: not the PEM of a public key: "
                "RSA of at least 2048 bits, P-256 or Ed25519"
            )
        return cls(algorithms, key)

    @classmethod
    def from_jwk(cls, document: Any) -> Self | None:
        """The key in one member of a JWKS; None where it is not a public key of a kind that is supported here.

        Symmetric and private keys are refused: what stands in a public document is no secret."""
        if not isinstance(document, dict):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # short RSA keys are refused below
                key = JWKRegistry.import_key(document)
            algorithms = _algorithms_of(key)
            if algorithms is None or (key.alg is not None and key.alg not in algorithms):
                return None
            key.check_use("sig")
            key.check_key_op("verify")
        except (JoseError, ValueError, TypeError, KeyError):
            return None
        return cls(algorithms, key, key.kid)

    def may_have_signed(self, algorithm: str, kid: str | None) -> bool:
        """Whether a token whose header says this is worth verifying with this key."""
        return algorithm in self.algorithms and (kid is None or self.kid is None or self.kid == kid)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's, by this key's algorithm."""
        try:
            return _VERIFIERS[self.algorithms].verify(message, signature, self.key)
        except (JoseError, ValueError, TypeError):
            return False


def _read_pem(pem: bytes) -> Key | None:
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)
                return kind.import_key(pem)
        except InvalidKeyTypeError:
            continue
        except (JoseError, ValueError, TypeError):
            return None
    return None


def _algorithms_of(key: Key) -> frozenset[str] | None:
    if key.is_private:
        return None
    match key:
        case RSAKey() if key.public_key.key_size >= 2048:  # RFC 7518 section 3.3
            return RS256
        case ECKey() if key.public_key.curve.name == "secp256r1":
            return ES256
        case OKPKey() if key.curve_name == "Ed25519":
            return EDDSA
    return None
