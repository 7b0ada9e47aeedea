"""nginx/render.sh: settings in, Nginx's configuration out; wrong ones are refused in one line. What it does is in
tests/live/test_nginx*.py."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from local import servers
from tests.support import parts

ROOT = Path(__file__).resolve().parents[3]
RENDER = ROOT / "nginx" / "render.sh"


def render(
    folder: Path, *arguments: str, path: str = os.environ["PATH"], **settings: str
) -> subprocess.CompletedProcess[str]:
    given = {
        "NGINX": servers.nginx(),
        "RUN": str(folder),
        "GATEWAYS": "10.0.0.1:8000",
        "CONNECTIONS": "512",
        **settings,
    }
    environ = {"PATH": path, **{f"CARILLON_EDGE_{name}": value for name, value in given.items()}}
    return subprocess.run(["sh", str(RENDER), *arguments], env=environ, capture_output=True, text=True, check=False)


def rendered(folder: Path, **settings: str) -> str:
    done = render(folder, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return (folder / "nginx.conf").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"GATEWAYS": ""}, "GATEWAYS must name the gateways"),
        ({"GATEWAYS": "gateway"}, "GATEWAYS=gateway must be host:port"),
        ({"GATEWAYS": "a:1, b:99999"}, "GATEWAYS=b:99999 must be host:port"),
        ({"GATEWAYS": "a:1; evil"}, "GATEWAYS=a:1; evil must be"),
        ({"BALANCE": "random"}, "BALANCE=random must be one of cookie|user|address"),
        ({"RESOLVE": "yes"}, "RESOLVE=yes must be 0 or 1"),
        ({"RESOLVE": "1", "NGINX_VERSION": "1.26.3"}, "RESOLVE=1 needs Nginx 1.27.3 or newer"),
        ({"RESOLVE": "1", "RESOLVER": "bad;name"}, "RESOLVER=bad;name must be addresses"),
        ({"PORT": "0"}, "PORT=0 must be a port from 1 to 65535"),
        ({"PORT": "65536"}, "PORT=65536 must be a port"),
        ({"STATUS_PORT": "8080"}, "PORT and CARILLON_EDGE_STATUS_PORT are the same port 8080"),
        ({"TLS_PORT": "8443"}, "TLS_PORT is set, and /etc/carillon/tls/tls.crt cannot be read"),
        ({"TRUSTED": "the-balancer"}, "TRUSTED=the-balancer must be addresses or CIDRs"),
        ({"TRUSTED": "bed"}, "TRUSTED=bed must be addresses or CIDRs"),
        ({"PROXY_PROTOCOL": "1"}, "PROXY_PROTOCOL=1 needs CARILLON_EDGE_TRUSTED"),
        ({"API": "1"}, "API=1 needs CARILLON_EDGE_INTERNAL_GATEWAYS"),
        ({"ADDRESS_RATE": "-1"}, "ADDRESS_RATE=-1 must be a whole number"),
        ({"DRAIN_TIMEOUT": "0"}, "DRAIN_TIMEOUT=0 must be a whole number above 0"),
        ({"DRAIN_TIMEOUT": "3601"}, "DRAIN_TIMEOUT=3601 must be 3600 at most"),
        ({"CONNECTIONS": "63"}, "CONNECTIONS=63 must be at least 64"),
        ({"HOST": "::1"}, "HOST=::1 must be an address; IPv6 in square brackets"),
        ({"ID": "short"}, "ID=short must be 16 to 64 letters"),
        ({"RUN": '/tmp/"x'}, "without quotes, dollar signs or backslashes"),
        ({"RUN": "/proc/nowhere"}, "RUN=/proc/nowhere cannot be written"),
        ({"ACCESS_LOG": "/tmp/$host"}, "ACCESS_LOG=/tmp/$host must be a path without"),
        ({"NGINX": "/bin/false"}, "NGINX=/bin/false does not run, or is no Nginx"),
        ({"NGINX_VERSION": "new"}, "NGINX_VERSION=new must be a version"),
        ({"GATWAYS": "a:1"}, "there is no setting CARILLON_EDGE_GATWAYS"),
    ],
)
def test_wrong_values_are_one_line(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    done = render(tmp_path, **settings)
    assert done.returncode != 0
    assert done.stderr.startswith("edge: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "nginx.conf").exists()


def test_names_that_kubernetes_makes_of_services_are_no_settings(tmp_path: Path) -> None:
    """N8: of Services called carillon-edge and carillon-edge-status."""
    names = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.1:80",
        "PORT_80_TCP": "tcp://10.0.0.1:80",
        "PORT_80_TCP_ADDR": "10.0.0.1",
        "STATUS_SERVICE_HOST": "10.0.0.2",
        "STATUS_PORT": "tcp://10.0.0.2:80",
    }
    text = rendered(tmp_path, **names)
    assert re.findall(r"listen (\d+)", text) == ["8080", "8081"]


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    assert "proxy_read_timeout 75s;" in rendered(tmp_path, IDLE_TIMEOUT="")


def test_names_are_followed_and_addresses_are_not(tmp_path: Path) -> None:
    text = rendered(
        tmp_path, GATEWAYS="gw.example:8000, 10.0.0.1:8000,[::1]:8000", RESOLVE="1", RESOLVER="10.0.0.53,::1"
    )
    assert "server gw.example:8000 max_fails=0 resolve;" in text
    assert "server 10.0.0.1:8000 max_fails=0;" in text
    assert "server [::1]:8000 max_fails=0;" in text
    assert "resolver 10.0.0.53 [::1] valid=5s ipv6=off;" in text


def test_fewer_descriptors_are_said_and_heeded(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'ulimit -n 1024; exec sh "{RENDER}"'],
        env={
            "PATH": os.environ["PATH"],
            "CARILLON_EDGE_NGINX": servers.nginx(),
            "CARILLON_EDGE_RUN": str(tmp_path),
            "CARILLON_EDGE_GATEWAYS": "a:1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "only 1024 descriptors here (ulimit -Hn): 768 connections of a worker, not 32768" in done.stderr
    assert "worker_connections 768;" in (tmp_path / "nginx.conf").read_text()


def test_each_start_has_a_name_of_its_own_that_only_its_user_can_read(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        rendered(tmp_path)
        names.add((tmp_path / "edge-id").read_text())
    assert len(names) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9-]+-[0-9a-f]{32}\n", name) for name in names)
    assert {(tmp_path / file).stat().st_mode & 0o077 for file in ("edge-id", "nginx.conf")} == {0}


@pytest.mark.parametrize("program", ["mawk", "gawk", "busybox"])
def test_every_awk_and_shell_writes_the_same(tmp_path: Path, program: str) -> None:
    """Debian's images have mawk and dash, Alpine's busybox for both."""
    found = parts.require(program)
    settings = {
        "ID": "0123456789abcdef",
        "RESOLVE": "1",
        "RESOLVER": "10.0.0.53",
        "TRUSTED": "10.0.0.0/8,::1",
        "GATEWAYS": "gw.example:1, other.example:2",
    }
    for applet in ("awk", "sh") if program == "busybox" else ("awk",):
        (tmp_path / applet).symlink_to(found)
    first = rendered(tmp_path / "run", **settings)
    done = render(tmp_path / "run", path=f"{tmp_path}:{os.environ['PATH']}", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "nginx.conf").read_text() == first


def test_every_setting_that_is_read_is_in_the_catalogue_and_the_reverse() -> None:
    catalogue = set(re.findall(r'^    setting\("(\w+)"', (ROOT / "nginx" / "settings.awk").read_text(), re.MULTILINE))
    read = set(re.findall(r'values\["(\w+)"\]', (ROOT / "nginx" / "render.awk").read_text()))
    template = set(re.findall(r"\$\{CARILLON_EDGE_(\w+)\}", (ROOT / "nginx" / "nginx.conf.template").read_text()))
    made = set(re.findall(r'made\["(\w+)"\]', (ROOT / "nginx" / "render.awk").read_text()))
    scripts = "".join(path.read_text() for path in (ROOT / "nginx").glob("*.sh"))
    asked = set(re.findall(r"(?:setting |wanted=|--get )([A-Z_]+)", scripts)) - {"NAME"}
    assert template <= made | catalogue
    assert read | asked <= catalogue
    assert catalogue <= read | asked | template
