"""The keys of the server API (N9)."""

import hmac
from hashlib import sha256
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from app import codes
from app.gateway.gateway import Gateway
from app.http.errors import HttpError

_header = APIKeyHeader(
    name="X-API-Key", scheme_name="ApiKey", description="One of `CARILLON_API_KEYS`.", auto_error=False
)


async def require_api_key(request: Request, given: Annotated[str | None, Security(_header)]) -> None:
    """Lets a call through that carries one of the keys. Without configured keys the API is off, and answers 403."""
    gateway: Gateway = request.app.state.gateway
    if not gateway.settings.api_keys:
        raise HttpError(codes.PERMISSION_DENIED, "the server API is off: CARILLON_API_KEYS is empty", status=403)
    # Digests have one length, and no comparison is left out: the time says neither how much of a key fits nor which.
    digest = sha256((given or "").encode("latin-1")).digest()  # the header's very bytes
    known = False
    for key in gateway.settings.api_keys:
        known |= hmac.compare_digest(digest, sha256(key.get_secret_value().encode()).digest())
    if not known:
        reason = "X-API-Key is none of the keys" if given else "X-API-Key is missing"
        raise HttpError(codes.UNAUTHORIZED, reason, status=401, headers={"WWW-Authenticate": "ApiKey"})
