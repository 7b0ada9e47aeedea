"""Every seed of the fuzzer, and every input that once broke a promise, keeps them now (`make fuzz` looks for more)."""

import importlib
from pathlib import Path

import pytest

from fuzz import CORPUS, TARGETS

SEEDS = [(name, path) for name in TARGETS for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize(("name", "path"), SEEDS, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_a_seed_keeps_the_promises(name: str, path: Path) -> None:
    importlib.import_module(f"fuzz.{name}").fuzz(path.read_bytes())


def test_each_folder_of_seeds_belongs_to_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
