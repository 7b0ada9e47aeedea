"""The edge's configuration as it is written for one machine; what it does is in tests/live/test_nginx.py."""

import re
from pathlib import Path

import pytest

from local import nginx
from local.errors import LocalError

EDGE = nginx.Edge(listen="127.0.0.1:8080", public=["127.0.0.1:1", "127.0.0.1:2"], internal=["127.0.0.1:3"])


def test_every_placeholder_is_filled_and_nginx_variables_stay(tmp_path: Path) -> None:
    config = nginx.write(EDGE, tmp_path)
    texts = [config.read_text(), *(path.read_text() for path in (tmp_path / "internal").iterdir())]
    assert not [text for text in texts if "${CARILLON" in text]
    assert "proxy_set_header X-Request-ID $request_id;" in texts[0]


def test_no_peer_is_ever_taken_out(tmp_path: Path) -> None:
    """N4: with the default max_fails one refused upgrade in five made 87 of 100 requests 502."""
    config = nginx.write(EDGE, tmp_path).read_text()
    peers = re.findall(r"server 127\.0\.0\.1:\d+ ([^;]*);", config)
    assert peers == ["max_fails=0", "max_fails=0"]


def test_a_folder_with_spaces_will_do_and_one_that_breaks_the_syntax_is_named(tmp_path: Path) -> None:
    nginx.write(EDGE, tmp_path / "my projects")
    with pytest.raises(LocalError, match=re.escape("no quotes, dollar signs or backslashes")):
        nginx.write(EDGE, tmp_path / 'a"b')
