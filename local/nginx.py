"""Renders the edge's configuration (`nginx/`) for one machine."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.errors import LocalError

RENDER = Path(__file__).resolve().parent.parent / "nginx" / "render.sh"
#: What only a machine has: the demo's files, a built app, internal paths from loopback.
OWN_PARTS = Path(__file__).resolve().parent / "edge"


@dataclass(frozen=True)
class Edge:
    """What the local edge listens on and passes to. Addresses are `host:port`."""

    host: str
    port: int
    public: Sequence[str]
    internal: Sequence[str]
    #: A built single-page app; empty: none.
    app_dir: str = ""
    #: The demo's files; empty: the gateway answers for them.
    demo_dir: str = ""
    #: More of CARILLON_EDGE_..., by the name's end (docs/edge.md).
    settings: Mapping[str, str] = field(default_factory=dict)


def write(edge: Edge, folder: Path, nginx: str) -> Path:
    """Writes nginx.conf, for that binary, and what it includes into `folder`; returns its path. Raises LocalError."""
    environ = {"PATH": os.environ.get("PATH", os.defpath)}
    environ |= {f"CARILLON_EDGE_{name}": value for name, value in _settings(edge, folder, nginx).items()}
    told = subprocess.run(["sh", str(RENDER)], env=environ, capture_output=True, text=True, check=False)
    if told.returncode:
        raise LocalError(told.stderr.strip())
    return folder / "nginx.conf"


def _settings(edge: Edge, folder: Path, nginx: str) -> dict[str, str]:
    return {
        "NGINX": nginx,
        "RUN": str(folder),
        "ACCESS_LOG": str(folder / "access.log"),
        "HOST": edge.host,
        "PORT": str(edge.port),
        "STATUS_PORT": "0",
        "WORKERS": str(min(2, os.cpu_count() or 1)),
        "GATEWAYS": ",".join(edge.public),
        "INTERNAL_GATEWAYS": ",".join(edge.internal),
        "INCLUDE": str(OWN_PARTS),
        "LOCAL_APP": str(Path(edge.app_dir).resolve() if edge.app_dir else folder / "no-app"),
        "LOCAL_DEMO": edge.demo_dir or str(folder / "no-demo"),
        "LOCAL_METRICS_PEERS": " ".join(f"/metrics/{n} {peer};" for n, peer in enumerate(edge.internal, 1)),
        **edge.settings,
    }
