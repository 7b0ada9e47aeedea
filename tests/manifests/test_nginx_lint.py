"""What a linter says about the edge's configuration, in all of its shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local import servers
from local.nginx import OWN_PARTS, RENDER
from tests.support.certificates import authority

GIXY = Path(sys.executable).with_name("gixy")

#: Objections that we do not share, and why.
IGNORED = {
    "proxy_buffering_off": "a WebSocket or an event stream that is buffered is late",
    "host_spoofing": "the gateway compares the whole Host, with its port, with the Origin, and builds no links from it",
    "worker_rlimit_nofile_vs_connections": "worker_connections counts both sides already: one descriptor for each",
}
IGNORED_IN = {
    "old": {"add_header_redefinition": "the 503 of an edge that goes sets no cookie"},
    "local": {
        "stale_dns_cache": "the pods are addresses there, no names",
        "try_files_is_evil_too": "the files are a developer's own, and few",
    },
}

CLUSTER = {
    "GATEWAYS": "gw.example:8000",
    "INTERNAL_GATEWAYS": "gw.example:9000",
    "RESOLVE": "1",
    "RESOLVER": "10.0.0.53",
}
SHAPES = {
    "plain": {"GATEWAYS": "10.0.0.1:8000"},
    "cluster": {**CLUSTER, "API": "1", "TRUSTED": "10.0.0.0/8", "PROXY_PROTOCOL": "1"},
    "tls": {
        **CLUSTER,
        "TLS_PORT": "8443",
        "PROXY_PROTOCOL": "1",
        "TRUSTED": "10.0.0.0/8",
        "ADDRESS_CONNECTIONS": "100",
        "ADDRESS_RATE": "10",
    },
    "user": {**CLUSTER, "BALANCE": "user"},
    "address": {**CLUSTER, "BALANCE": "address"},
    "old": {"GATEWAYS": "10.0.0.1:8000", "NGINX_VERSION": "1.22.1"},
    "local": {
        "GATEWAYS": "127.0.0.1:8000",
        "INTERNAL_GATEWAYS": "127.0.0.1:9000",
        "INCLUDE": str(OWN_PARTS),
        "LOCAL_APP": "/srv/app",
        "LOCAL_DEMO": "/srv/demo",
        "LOCAL_METRICS_PEERS": "/metrics/1 127.0.0.1:9000;",
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_nginx_takes_it_and_the_linter_has_nothing_to_say(tmp_path: Path, shape: str) -> None:
    assert set(lint(tmp_path, SHAPES[shape])) == {*IGNORED, *IGNORED_IN.get(shape, {})}


def lint(folder: Path, settings: dict[str, str]) -> list[str]:
    authority(folder / "tls").rename(folder / "tls" / "tls.crt")
    (folder / "tls" / "key.pem").rename(folder / "tls" / "tls.key")
    given = {
        "NGINX": servers.nginx(),
        "RUN": str(folder),
        "CERTIFICATES": str(folder / "tls"),
        "CONNECTIONS": "512",
        **settings,
    }
    environ = {"PATH": os.environ["PATH"], **{f"CARILLON_EDGE_{name}": value for name, value in given.items()}}
    subprocess.run(["sh", str(RENDER)], env=environ, check=True, capture_output=True)
    config = str(folder / "nginx.conf")
    checked = subprocess.run(
        [servers.nginx(), "-t", "-q", "-p", str(folder), "-c", config, "-e", "stderr"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    told = subprocess.run([GIXY, "-f", "json", config], capture_output=True, text=True, check=False)
    return [objection["plugin"] for objection in json.loads(told.stdout)]
