"""What is made from the code is up to date, and what people write names only what exists."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.modules import module_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return module_of(ROOT / "docs" / "generate.py", "generate")


def test_generated_pages_say_what_the_code_says(generate: ModuleType) -> None:
    assert generate.stale() == [], "run `make docs`"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
