"""Which web pages may connect: the check of `Origin` on every upgrade of a browser (RFC 6454)."""

from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_allowed(origin: str | None, host: str, allowed: list[str]) -> bool:
    """No Origin: no browser. With no list of allowed origins, the page must come from the host that was asked."""
    if origin is None or "*" in allowed:
        return True
    if allowed:
        return origin in allowed
    scheme, _, page = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme)
    if default is None:  # `null`, an extension, a file
        return False
    # TLS may end before us, so the scheme of the request is not known: only host and port are compared.
    of_page = _host_and_port(page, default)
    return of_page is not None and of_page == _host_and_port(host, default)


def _host_and_port(text: str, default: int) -> tuple[str, int] | None:
    """None for what is neither in an Origin nor in a Host header; a client can send anything there."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.netloc != text or "@" in text:
        return None
    return parts.hostname, default if port is None else port
