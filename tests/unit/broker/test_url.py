"""The broker's URL: what is understood, and that no error repeats it."""

import ssl
from pathlib import Path

import pytest

from app.broker.url import Address, Kind, Login, parse
from app.settings import SettingsError


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_one_server(name: str) -> None:
    url = parse(f"{name}://example.org")
    assert (url.kind, url.addresses, url.db, url.tls) == (Kind.STANDALONE, (Address("example.org", 6379),), 0, None)
    assert url.login == Login("", "")


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_everything_at_once(name: str) -> None:
    url = parse(f"{name}s://ann:p%40ss%2Fword@[::1]:7000/3")
    assert url.addresses == (Address("::1", 7000),)
    assert url.login == Login("ann", "p@ss/word")
    assert url.db == 3
    assert url.tls is not None
    assert url.tls.check_hostname
    assert not url.tls.verify_flags & ssl.VERIFY_X509_STRICT, "as Python before 3.13"


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_sentinels(name: str) -> None:
    url = parse(f"{name}+sentinel://:secret@a:1,b/the-master?sentinel_user=u&sentinel_password=p%26q")
    assert (url.kind, url.master) == (Kind.SENTINEL, "the-master")
    assert url.addresses == (Address("a", 1), Address("b", 26379))
    assert url.login == Login("", "secret")
    assert url.sentinel_login == Login("u", "p&q")


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_a_cluster(name: str) -> None:
    url = parse(f"{name}+cluster://a:1,b:2")
    assert (url.kind, url.addresses) == (Kind.CLUSTER, (Address("a", 1), Address("b", 2)))


@pytest.mark.parametrize("name", ["rediss+sentinel://a/m", "rediss+cluster://a", "valkeys+cluster://a"])
def test_tls_goes_with_each_kind(name: str) -> None:
    assert parse(name).tls is not None


def test_a_password_may_hold_what_the_rest_may_not() -> None:
    assert parse("redis://u:a@b:c@host").login == Login("u", "a@b:c")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must look like"),
        ("hunter2", "must look like"),
        ("http://:hunter2@a", "must look like"),
        ("memory://hunter2", "must look like"),
        ("redis://:hunter2/x@a", "each host must be"),  # an unescaped slash ends the hosts
        ("redis://:hunter2?x@a", "each host must be"),
        ("redis://:hunter2#x@a", "must look like"),
        ("redis://:hunter2@", "each host must be"),
        ("redis://:hunter2@a:0", "each host must be"),
        ("redis://:hunter2@a:65536", "each host must be"),
        ("redis://:hunter2@a:x", "each host must be"),
        ("redis://:hunter2@a b", "each host must be"),
        ("redis://:hunter2@a,b", "several hosts"),
        ("redis://:hunter2@a/x", "number of a database"),
        ("redis://hunter2@a", "user:password"),
        ("redis://hunter2:@a", "user:password"),
        ("redis+sentinel://:hunter2@a", "master's name"),
        ("redis+cluster://:hunter2@a/0", "no databases"),
        ("redis://:hunter2@a?hunter2=1", "only options"),
        ("redis://:hunter2@a?ca=/hunter2", "ca needs TLS"),
        ("redis://:hunter2@a?sentinel_password=hunter2", "need redis.sentinel"),
        ("rediss://:hunter2@a?ca=/hunter2/missing.pem", "No such file"),
    ],
)
def test_what_cannot_work_is_refused_without_repeating_it(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as refused:
        parse(text)
    assert str(refused.value).startswith("CARILLON_REDIS_URL: ")
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_holds_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(SettingsError, match="the file that ca names cannot be used"):
        parse(f"rediss://a?ca={tmp_path / 'ca.pem'}")


def test_a_login_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(parse("redis+sentinel://u:hunter2@a/m?sentinel_password=hunter2"))


def test_the_end_of_a_files_line_is_no_part_of_it() -> None:
    assert parse("redis://:secret@h/1\n") == parse("redis://:secret@h/1")
