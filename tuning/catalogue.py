"""What sysctl.d/ sets, and what is said there about each line: docs/tuning.md is made from it."""

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "sysctl.d"
LABELS = ("Why", "Without", "Check", "In a pod")


@dataclass(frozen=True)
class Setting:
    name: str
    value: str
    words: dict[str, str]  # label -> text


class NotSaid(Exception):
    """A setting without its reasons."""


def settings(file: Path) -> list[Setting]:
    """In order. Raises NotSaid where a line has not all four labels above it, or is no setting."""
    found: list[Setting] = []
    words: dict[str, str] = {}
    for line in file.read_text("utf-8").splitlines():
        label = re.match(rf"# ({'|'.join(LABELS)}): (.*)", line)
        if label:
            words[label[1]] = label[2]
        elif line.startswith("#   ") and words:
            last = next(reversed(words))
            words[last] += " " + line.removeprefix("#   ")
        elif line and not line.startswith("#"):
            setting = re.fullmatch(r"([a-z0-9_.]+) = (\d+(?: \d+)*)", line)
            if setting is None:
                raise NotSaid(f"{file.name}: {line!r} is no setting")
            if tuple(words) != LABELS:
                raise NotSaid(f"{file.name}: {setting[1]} does not say {', '.join(LABELS)} in this order")
            found.append(Setting(setting[1], setting[2], words))
            words = {}
    return found


def files() -> dict[str, list[Setting]]:
    """File name -> its settings."""
    return {path.name: settings(path) for path in sorted(FOLDER.glob("*.conf"))}
