"""Which web pages may connect: the check of `Origin` on every upgrade of a browser (RFC 6454)."""

from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def origin_allowed(origin: str | None, host: str, allowed: list[str]) -> bool:
    """No Origin: no browser. With no list of allowed origins, the page must come from the host that was asked."""
    if origin is None or "*" in allowed:
        return True
    if allowed:
        return origin in allowed
    parts = urlsplit(origin)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    # TLS may end before us, so the scheme of the request is not known: only host and port are compared.
    asked = urlsplit(f"//{host}")
    try:
        asked_port = asked.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.hostname, port) == (asked.hostname, asked_port)
