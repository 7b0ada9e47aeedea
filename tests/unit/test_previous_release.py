"""Which release is run beside this one (P6)."""

import subprocess
from pathlib import Path

import pytest

from tests.support.releases import previous_release

GIT = ("git", "-c", "user.name=ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    (repository / "app").mkdir(parents=True)
    subprocess.run((*GIT, "init", "-q", repository), check=True)
    return repository


def commit(repository: Path, text: str, *tags: str) -> None:
    (repository / "app" / "text").write_text(text)
    git = (*GIT, "-C", repository)
    subprocess.run((*git, "add", "."), check=True)
    subprocess.run((*git, "commit", "-qm", text), check=True)
    for tag in tags:
        subprocess.run((*git, "tag", tag), check=True)


def test_it_is_the_newest_tag_before_this_commit(repository: Path, tmp_path: Path) -> None:
    commit(repository, "nine", "v1.9.0")
    commit(repository, "ten", "v1.10.0", "nightly")
    commit(repository, "now", "v1.11.0")
    (repository / "app" / "text").write_text("not committed")
    assert previous_release(tmp_path / "old", repository) == "v1.10.0"
    assert (tmp_path / "old" / "app" / "text").read_text() == "ten"


def test_before_the_first_tag_it_is_what_was_committed_last(repository: Path, tmp_path: Path) -> None:
    commit(repository, "now", "v1.0.0")
    (repository / "app" / "text").write_text("not committed")
    with pytest.warns(UserWarning, match="HEAD runs beside"):
        assert previous_release(tmp_path / "old", repository) == "HEAD"
    assert (tmp_path / "old" / "app" / "text").read_text() == "now"


def test_without_git_it_is_a_copy(tmp_path: Path) -> None:
    repository = tmp_path / "download"
    (repository / "app").mkdir(parents=True)
    (repository / "app" / "text").write_text("now")
    with pytest.warns(UserWarning, match="a copy runs beside"):
        assert previous_release(tmp_path / "old", repository) == "a copy"
    assert (tmp_path / "old" / "app" / "text").read_text() == "now"
