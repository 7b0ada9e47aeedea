"""The opening handshake: what the HTTP parser takes for an upgrade is read as it was sent, and accepted or refused."""

import httptools

from app.server.handshake import Answer, BadHandshake, accept_key, agree_on_deflate, read_head, switching_protocols


class _Request:
    """What httptools tells of a request head, kept as uvicorn keeps it."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def fuzz(data: bytes) -> None:
    """A request head as it comes from the socket."""
    request = _Request()
    parser = httptools.HttpRequestParser(request)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return
    else:
        return
    lines = [b"%b %b HTTP/1.1" % (parser.get_method(), request.url)]
    lines += [b"%b: %b" % header for header in request.headers]
    head = read_head(b"\r\n".join(lines) + b"\r\n\r\n")
    assert head.method.encode() == parser.get_method()
    assert head.target.encode("latin-1") == request.url
    assert head.headers == request.headers, (head.headers, request.headers)
    for text in (head.path, head.raw_path, head.query, *head.subprotocols):
        assert isinstance(text, str)
    try:
        answer = Answer(accept_key(head), agree_on_deflate(head))
    except BadHandshake as bad:
        assert bad.status in (400, 405, 426)
    else:
        response = switching_protocols(answer, next(iter(head.subprotocols), None), [])
        assert response.endswith(b"\r\n\r\n")
        assert response.count(b"\r\n\r\n") == 1
