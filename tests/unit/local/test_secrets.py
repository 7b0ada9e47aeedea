"""Secrets of the local stack: given, or generated once."""

import json
from pathlib import Path

import pytest

from local.errors import LocalError
from local.secrets import API_KEYS, HMAC_SECRET, first_api_key, missing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "secrets.json"


def test_the_first_start_generates_them_for_this_user_alone_and_the_next_uses_them_again(file: Path) -> None:
    made = missing({}, file)
    assert made.keys() == {HMAC_SECRET, API_KEYS}
    assert all(value.startswith("dev-") and len(value) > 40 for value in made.values())
    assert file.stat().st_mode & 0o777 == 0o600
    assert missing({}, file) == made
    assert [path.name for path in file.parent.iterdir()] == ["secrets.json"]


@pytest.mark.parametrize("name", [HMAC_SECRET, f"{HMAC_SECRET}_FILE"])
def test_what_the_environment_gives_is_not_generated(file: Path, name: str) -> None:
    assert missing({name: "given"}, file).keys() == {API_KEYS}


def test_nothing_is_written_where_everything_is_given(file: Path) -> None:
    assert missing({HMAC_SECRET: "a", API_KEYS: "b"}, file) == {}
    assert not file.exists()


def test_without_dev_nothing_is_generated(file: Path) -> None:
    """N7: generated secrets are for development."""
    with pytest.raises(LocalError, match=f"{API_KEYS} must be set"):
        missing({"CARILLON_DEV": "0", HMAC_SECRET: "a"}, file)
    assert not file.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({HMAC_SECRET: "dev-x"})])
def test_a_broken_file_is_one_clear_line(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(LocalError, match=r"secrets\.json cannot be read"):
        missing({}, file)


def test_the_key_to_show_is_the_first_one_given(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    assert first_api_key({API_KEYS: " a , b"}) == "a"
    assert first_api_key({f"{API_KEYS}_FILE": str(keys)}) == "one"
    with pytest.raises(LocalError, match="No such file"):
        first_api_key({f"{API_KEYS}_FILE": str(tmp_path / "none")})
