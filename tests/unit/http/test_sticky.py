"""The edge's cookie, which tests/live/test_rebalance.py compares with a real edge's."""

import pytest
from fastapi import WebSocket

from app.http.sticky import leads_here


def upgrade(cookie: str | None, server: tuple[str, int | None] | None) -> WebSocket:
    headers = [] if cookie is None else [(b"cookie", cookie.encode())]
    scope = {"type": "websocket", "headers": headers, "server": server}
    return WebSocket(scope, receive=None, send=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cookie", "server", "leads"),
    [
        ("a=1; carillon_edge=dab783c02b2d5cb33d5db8b7fcffc964", ("127.0.0.1", 18315), True),
        ("carillon_edge=dab783c02b2d5cb33d5db8b7fcffc964", ("127.0.0.1", 18316), False),
        ("carillon_edge=71d8ce9ba1c43e0f7ac6f3b5c3d19d35", ("::1", 8000), False),
        ("other=dab783c02b2d5cb33d5db8b7fcffc964", ("127.0.0.1", 18315), False),
        (None, ("127.0.0.1", 18315), False),
        ("carillon_edge=x", None, False),
        ("carillon_edge=x", ("/run/socket", None), False),
    ],
)
def test_it_leads_to_the_pod_with_that_address(
    cookie: str | None, server: tuple[str, int | None] | None, leads: bool
) -> None:
    assert leads_here(upgrade(cookie, server)) is leads
