"""Which web pages may connect."""

import pytest

from app.http.origin import origin_allowed


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.org"),
        ("https://example.org", "example.org"),
        ("http://example.org", "example.org"),
        ("https://example.org", "example.org:443"),
        ("https://example.org:443", "example.org"),
        ("http://example.org:8080", "example.org:8080"),
        ("http://example.org", "EXAMPLE.org"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_without_a_list_a_page_may_connect_to_its_own_host(origin: str | None, host: str) -> None:
    assert origin_allowed(origin, host, [])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.org", "example.org"),
        ("https://example.org.evil.org", "example.org"),
        ("https://sub.example.org", "example.org"),
        ("https://example.org:8443", "example.org"),
        ("http://example.org", "example.org:443"),
        ("https://example.org@evil.org", "evil.org"),
        ("https://example.org/", "example.org"),
        ("https://example.org, https://evil.org", "example.org"),
        ("chrome-extension://example.org", "example.org"),
        ("null", "null"),
        ("", ""),
        ("https://", ""),
        ("https://example.org:x", "example.org:x"),
        ("https://example.org:99999", "example.org:99999"),
        ("https://[::1", "[::1"),
        ("https://example.org", "["),
        ("https://example.org", ""),
    ],
)
def test_without_a_list_no_other_page_may(origin: str, host: str) -> None:
    assert not origin_allowed(origin, host, [])


def test_a_list_is_taken_literally_and_the_own_host_is_not_on_it() -> None:
    allowed = ["https://example.org", "http://localhost:3000"]
    assert origin_allowed("https://example.org", "ws.example.org", allowed)
    assert origin_allowed("http://localhost:3000", "ws.example.org", allowed)
    for other in ("http://example.org", "https://example.org:8443", "https://ws.example.org", "null"):
        assert not origin_allowed(other, "ws.example.org", allowed)


def test_a_star_allows_every_page() -> None:
    assert origin_allowed("null", "example.org", ["*"])
