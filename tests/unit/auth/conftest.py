"""Keys of every kind, and an environment without the developer's own settings."""

import os

import pytest
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tests.support.forgery import SECRET, Forge, forger


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("CARILLON_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def keys() -> dict[str, Key]:
    """A private key for each algorithm."""
    return {
        "HS256": OctKey.import_key(SECRET),
        "RS256": RSAKey.generate_key(2048),
        "ES256": ECKey.generate_key("P-256"),
        "EdDSA": OKPKey.generate_key("Ed25519"),
    }


@pytest.fixture(scope="session")
def forge(keys: dict[str, Key]) -> Forge:
    """`forge(payload, alg="HS256", key=None, **header)` makes a token."""
    return forger(keys)
