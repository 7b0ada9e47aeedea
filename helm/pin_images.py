"""Writes a copy of the chart that names its images by digest: `python3 helm/pin_images.py GATEWAY EDGE FOLDER`.

GATEWAY and EDGE are `registry/name@sha256:...`. A tag may be moved, a digest not: a release's chart always runs what
was built with it."""

import re
import shutil
import sys
from pathlib import Path

CHART = Path(__file__).parent / "carillon"
_REFERENCE = re.compile(r"(?P<repository>[a-z0-9][a-z0-9.:/_-]*/[a-z0-9._-]+)@(?P<digest>sha256:[0-9a-f]{64})")


class WrongImage(Exception):
    """One line that says which image cannot be taken."""


def pin(gateway: str, edge: str, folder: Path) -> None:
    """Copies the chart into `folder`, which must not exist."""
    wanted = {}
    for name, image, keys in (("GATEWAY", gateway, ("image",)), ("EDGE", edge, ("edge", "image"))):
        found = _REFERENCE.fullmatch(image)
        if found is None:
            raise WrongImage(f"{name}: {image!r} is not of the form registry/name@sha256:<64 hex digits>")
        wanted |= {(*keys, part): value for part, value in found.groupdict().items()}
    shutil.copytree(CHART, folder)  # what links to files outside becomes part of it
    values = folder / "values.yaml"
    values.write_text(_with_values(values.read_text("utf-8"), wanted), "utf-8")


def _with_values(text: str, wanted: dict[tuple[str, ...], str]) -> str:
    """Line by line, so that the comments stay, which are the documentation of the values."""
    path: list[tuple[int, str]] = []
    lines, left = [], dict(wanted)
    for line in text.splitlines():
        key = re.match(r"( *)([A-Za-z]\w*):", line)
        if key:
            indent = len(key[1])
            path = [*((depth, name) for depth, name in path if depth < indent), (indent, key[2])]
            value = left.pop(tuple(name for _, name in path), None)
            if value is not None:
                line = f"{key[0]} {value}"
        lines.append(line)
    if left:
        raise WrongImage(f"values.yaml has no {', '.join('.'.join(keys) for keys in left)}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print("usage: pin_images.py GATEWAY EDGE FOLDER", file=sys.stderr)
        return 2
    gateway, edge, folder = arguments
    try:
        pin(gateway, edge, Path(folder))
    except (WrongImage, FileExistsError) as error:
        print(f"carillon: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
