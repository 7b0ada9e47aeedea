"""The release before this one, to run beside it: its newest tag, or for want of one this tree's last commit."""

import io
import shutil
import subprocess
import tarfile
import warnings
from pathlib import Path

from local.stack import ROOT


def previous_release(folder: Path, repository: Path = ROOT) -> str:
    """Writes it into `folder` and returns what it is: a tag `v1.2.0`, `HEAD`, or `a copy` where there is no git.

    Whatever is no release is said in a warning: what two releases do beside each other was not tested then."""
    found = _newest_tag(repository)
    tree = _archive(repository, found or "HEAD")
    folder.mkdir(parents=True)
    if tree is None:
        shutil.copytree(repository / "app", folder / "app")
    else:
        with tarfile.open(fileobj=io.BytesIO(tree)) as archive:
            archive.extractall(folder, filter="data")
    name = found or ("HEAD" if tree is not None else "a copy")
    if found is None:
        warnings.warn(f"no earlier release is known here (a tag v*): {name} runs beside this tree", stacklevel=2)
    return name


def _newest_tag(repository: Path) -> str | None:
    """The newest release that this commit comes after. A shallow clone may know none."""
    before = (_git(repository, "tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname") or b"").split()
    here = (_git(repository, "tag", "--points-at", "HEAD") or b"").split()
    return next((tag.decode() for tag in before if tag not in here), None)


def _archive(repository: Path, commit: str) -> bytes | None:
    return _git(repository, "archive", "--format=tar", commit, "app")


def _git(repository: Path, *arguments: str) -> bytes | None:
    """What git answers; None where there is no git, or no repository of its own (the source as a download)."""
    if not (repository / ".git").exists():
        return None
    try:
        done = subprocess.run(("git", "-C", repository, *arguments), capture_output=True, timeout=30, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
