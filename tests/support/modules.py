"""Modules that are in no package: the generators beside what they generate, and examples out of the documentation."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def module_of(file: Path, name: str) -> ModuleType:
    """Runs the file as a module of that name, under which others can import it from now on."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
