"""Imports go one way (docs/ARCHITECTURE.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "app"

#: From the top floor down: a folder or file imports only from those below it, and from its own.
FLOORS = [
    {"testing"},
    {"main"},
    {"http"},
    {"server", "__main__"},
    {"gateway", "cli"},
    {"auth"},
    {"broker", "offload", "hooks", "hosting", "deletion_cost"},
    {"wire", "settings", "smoke"},
    {"telemetry", "codes", "offload_process", "settings_sources", "tls"},
]
LEVEL = {name: level for level, names in enumerate(reversed(FLOORS)) for name in names}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"app.{alias.name}" for alias in node.names] if node.module == "app" else [node.module]
        yield from (module.split(".")[1] for module in modules if module.startswith("app."))


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda path: str(path.relative_to(APP)))
def test_no_arrow_runs_back_up(path: Path) -> None:
    own = path.relative_to(APP).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for other in imported(path):
        if other in LEVEL and other != own:
            assert LEVEL[other] < LEVEL[own] or LEVEL[other] == LEVEL[own] == 0, f"{own} imports {other}"
