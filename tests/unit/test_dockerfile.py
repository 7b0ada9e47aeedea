"""The Dockerfile, as far as it can be checked without an engine; tests/deploy builds and runs it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


def test_no_frontend_is_fetched_from_a_registry() -> None:
    assert "# syntax" not in re.sub(r"`[^`]*`", "", DOCKERFILE)


def test_the_gateway_is_what_is_built_by_default() -> None:
    assert re.findall(r"^FROM .* AS (\w+)$", DOCKERFILE, re.MULTILINE) == ["build", "edge", "gateway"]


def test_only_what_the_images_need_goes_into_a_build() -> None:
    """Neither secrets nor caches nor .git, whatever lies about in a checkout."""
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == {"LICENSE", "app", "images", "nginx", "requirements/image.txt"}
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+) ", DOCKERFILE, re.MULTILINE)
    assert {source for source in copied if source.split("/")[0] not in allowed and source not in allowed} == set()
