"""Secrets of the local stack: the environment's, else generated once into a file that git ignores (N7)."""

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from local.errors import LocalError

HMAC_SECRET = "CARILLON_TOKEN_HMAC_SECRET"
API_KEYS = "CARILLON_API_KEYS"

#: The gateway refuses values that start like this, unless CARILLON_DEV=1.
GENERATED = "dev-"


def is_dev(environ: Mapping[str, str]) -> bool:
    """Whether the local stack runs in development mode, which is its default (N7)."""
    return environ.get("CARILLON_DEV", "1").lower() in ("1", "true", "yes", "on", "t", "y")


def missing(environ: Mapping[str, str], file: Path) -> dict[str, str]:
    """The secrets that `environ` does not give, from `file`, which is written (mode 0600) where it is not there yet.

    Raises LocalError where something is missing and CARILLON_DEV is off: generated secrets are for development."""
    names = [name for name in (HMAC_SECRET, API_KEYS) if not environ.get(name) and not environ.get(f"{name}_FILE")]
    if not names:
        return {}
    if not is_dev(environ):
        raise LocalError(
            f"With CARILLON_DEV off, {' and '.join(names)} must be set: secrets are generated only with it on."
        )
    kept = _read(file) or _generate(file)
    return {name: kept[name] for name in names}


def first_api_key(environ: Mapping[str, str]) -> str:
    """The key to show to the person who started the stack."""
    file = environ.get(f"{API_KEYS}_FILE")
    try:
        keys = environ.get(API_KEYS) or (Path(file).read_text("utf-8").replace("\n", ",") if file else "")
    except OSError as error:
        raise LocalError(f"{API_KEYS}_FILE: {file}: {error.strerror}") from None
    return next((key.strip() for key in keys.split(",") if key.strip()), "")


def _read(file: Path) -> dict[str, str] | None:
    try:
        kept = json.loads(file.read_text("utf-8"))
        return {name: str(kept[name]) for name in (HMAC_SECRET, API_KEYS)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise LocalError(f"{file} cannot be read as generated secrets; remove it and start again.") from None


def _generate(file: Path) -> dict[str, str]:
    """Writes the file whole or not at all; of two first starts at once, both use what the first one wrote."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = {name: GENERATED + secrets.token_urlsafe(32) for name in (HMAC_SECRET, API_KEYS)}
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(made, stream, indent=2)
    try:
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
    return _read(file) or made
