"""The broker's address: what a URL in the settings says (A5). No error repeats any part of it: it holds a password."""

import re
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from app.settings import SettingsError
from app.tls import trusting

FORMS = (
    "memory://, redis://[user:password@]host[:port][/db], rediss://...?ca=FILE, redis+sentinel://h:p,h:p/master, "
    "redis+cluster://h:p,h:p, or the same with valkey"
)
URL = re.compile(
    r"(?:redis|valkey)(?P<tls>s?)(?:\+(?P<kind>sentinel|cluster))?://"
    r"(?:(?P<login>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?:/(?P<path>[^/?#]*))?(?:\?(?P<query>[^#]*))?"
)
HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?")
OPTIONS = frozenset({"ca", "sentinel_user", "sentinel_password"})


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Kind(StrEnum):
    """How the primaries are found."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials of an ACL user; the user "" is Redis' default user. Without a password nothing is sent."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A parsed URL. `addresses` are the server, the sentinels, or some nodes of the cluster."""

    kind: Kind
    addresses: tuple[Address, ...]
    login: Login
    sentinel_login: Login
    db: int
    master: str
    tls: ssl.SSLContext | None


def parse(text: str) -> BrokerUrl:
    """Reads the URL of a redis broker. Raises SettingsError."""
    match = URL.fullmatch(text.strip())  # a Secret made of a file ends in a newline
    if match is None:
        raise _wrong(f"must look like {FORMS}; special characters of a password are written as %XX")
    kind = Kind(match["kind"] or "standalone")
    addresses = _addresses(match["hosts"], 26379 if kind is Kind.SENTINEL else 6379)
    path = unquote(match["path"] or "")
    options = _options(match["query"] or "", kind, tls=bool(match["tls"]))
    if kind is Kind.STANDALONE and len(addresses) > 1:
        raise _wrong("several hosts need redis+sentinel:// or redis+cluster://")
    if kind is Kind.SENTINEL and not path:
        raise _wrong("redis+sentinel:// needs the master's name: redis+sentinel://h:p,h:p/master")
    if kind is Kind.CLUSTER and path:
        raise _wrong("redis+cluster:// takes no path: a cluster has no databases")
    if kind is Kind.STANDALONE and path and not re.fullmatch(r"\d{1,9}", path):
        raise _wrong("the path must be the number of a database")
    return BrokerUrl(
        kind=kind,
        addresses=addresses,
        login=_login(match["login"]),
        sentinel_login=Login(options.get("sentinel_user", ""), options.get("sentinel_password", "")),
        db=int(path or 0) if kind is Kind.STANDALONE else 0,
        master=path if kind is Kind.SENTINEL else "",
        tls=_tls_context(options.get("ca")) if match["tls"] else None,
    )


def _wrong(why: str) -> SettingsError:
    return SettingsError(f"CARILLON_REDIS_URL: {why}")


def _addresses(text: str, default_port: int) -> tuple[Address, ...]:
    addresses = []
    for part in text.split(","):
        match = HOST.fullmatch(part)
        if match is None or not 0 < int(match["port"] or default_port) < 65_536:
            raise _wrong("each host must be a name or address, with a port from 1 to 65535 after a colon")
        addresses.append(Address(match["host"].strip("[]"), int(match["port"] or default_port)))
    return tuple(addresses)


def _login(text: str | None) -> Login:
    if text is None:
        return Login()
    user, colon, password = text.partition(":")
    if not colon or not password:
        raise _wrong("what stands before the @ must be user:password or :password")
    return Login(unquote(user), unquote(password))


def _options(query: str, kind: Kind, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= OPTIONS:
        raise _wrong(f"the only options after ? are {', '.join(sorted(OPTIONS))}")
    if "ca" in options and not tls:
        raise _wrong("ca needs TLS: rediss:// or valkeys://")
    if options.keys() - {"ca"} and kind is not Kind.SENTINEL:
        raise _wrong("sentinel_user and sentinel_password need redis+sentinel://")
    return options


def _tls_context(ca: str | None) -> ssl.SSLContext:
    try:
        return trusting(ca)
    except OSError as error:  # ssl.SSLError is one
        raise _wrong(f"the file that ca names cannot be used: {error.strerror or 'not a PEM certificate'}") from None
