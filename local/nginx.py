"""Renders the edge's configuration (`nginx/`) for one machine."""

import grp
import os
import pwd
import re
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.errors import LocalError

TEMPLATES = Path(__file__).resolve().parent.parent / "nginx"

#: A proxied WebSocket costs two descriptors and two of a worker's connections.
WORKER_CONNECTIONS = 32_768
#: `${CARILLON_...}` and nothing else, as the image's envsubst does it: Nginx's own variables stay.
_PLACEHOLDER = re.compile(r"\$\{(CARILLON_\w+)\}")


@dataclass(frozen=True)
class Edge:
    """What the local edge listens on and passes to. Addresses are `host:port`."""

    listen: str
    public: Sequence[str]
    internal: Sequence[str]
    #: A built single-page app; empty: none.
    app_dir: str = ""
    #: The demo's files; empty: the gateway answers for them.
    demo_dir: str = ""
    #: Networks of load balancers in front, whose X-Forwarded-For is believed.
    trusted: Sequence[str] = ()
    #: Connections and upgrades per second of one client address; None: no limit (A3).
    address_limits: tuple[int, int] | None = None


def write(edge: Edge, folder: Path) -> Path:
    """Writes nginx.conf and what it includes into `folder`; returns its path."""
    values = _values(edge, folder)
    for template in TEMPLATES.rglob("*.template"):
        target = folder / template.relative_to(TEMPLATES).with_suffix("")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_PLACEHOLDER.sub(lambda found: values[found[1]], template.read_text("utf-8")), "utf-8")
    return folder / "nginx.conf"


def _values(edge: Edge, folder: Path) -> dict[str, str]:
    nofile = _descriptors()
    connections, rate = edge.address_limits or (1, 1)
    return {
        "CARILLON_EDGE_USER": _user(),
        "CARILLON_EDGE_WORKERS": str(min(2, os.cpu_count() or 1)),
        "CARILLON_EDGE_NOFILE": str(nofile),
        "CARILLON_EDGE_CONNECTIONS": str(min(WORKER_CONNECTIONS, nofile - 64)),
        "CARILLON_EDGE_RUN": _plain(folder),
        "CARILLON_EDGE_ACCESS_LOG": _plain(folder / "access.log"),
        "CARILLON_EDGE_LISTEN": edge.listen,
        "CARILLON_EDGE_PEERS": _peers(edge.public),
        "CARILLON_EDGE_INTERNAL_PEERS": _peers(edge.internal),
        "CARILLON_EDGE_METRICS_PEERS": " ".join(f"/metrics/{n} {peer};" for n, peer in enumerate(edge.internal, 1)),
        "CARILLON_EDGE_TRUSTED": " ".join(f"set_real_ip_from {network};" for network in edge.trusted),
        "CARILLON_EDGE_RESOLVER": "",
        "CARILLON_EDGE_APP_DIR": _plain(Path(edge.app_dir).resolve() if edge.app_dir else folder / "no-app"),
        "CARILLON_EDGE_DEMO_DIR": _plain(Path(edge.demo_dir) if edge.demo_dir else folder / "no-demo"),
        "CARILLON_EDGE_LIMIT_KEY": "$binary_remote_addr" if edge.address_limits else '""',
        "CARILLON_EDGE_ADDRESS_CONNECTIONS": str(connections),
        "CARILLON_EDGE_ADDRESS_RATE": str(rate),
        "CARILLON_EDGE_ADDRESS_BURST": str(rate),
    }


def _peers(addresses: Sequence[str]) -> str:
    return " ".join(f"server {address} max_fails=0;" for address in addresses)


def _user() -> str:
    """Started as root, Nginx would make its workers `nobody`, who cannot read a private checkout."""
    if os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def _descriptors() -> int:
    """How many descriptors a worker may have, which only root may raise above the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * WORKER_CONNECTIONS
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _plain(path: Path) -> str:
    """A path that stands between double quotes in the configuration."""
    text = str(path)
    if re.search(r'["$\\\x00-\x1f]', text):
        raise LocalError(f"Nginx cannot take the path {text!r}: no quotes, dollar signs or backslashes, please.")
    return text
