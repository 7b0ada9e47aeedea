"""What every test may use: stacks, and a loud word about parts that were missing."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import parts
from tests.support.stack import Stack, StackFactory, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two pods of two workers behind Nginx, shared by all tests that only use it: use rooms of your own."""
    with Stack(tmp_path_factory.mktemp("stack")) as shared:
        yield shared


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[StackFactory]:
    """Starts stacks of the test's own, e.g. `make_stack(pods=1, env={...})`, for tests that break things."""
    with ExitStack() as opened:
        made = 0

        def make(**options: Any) -> Stack:
            nonlocal made
            made += 1
            return opened.enter_context(Stack(tmp_path / f"stack-{made}", **options))

        yield make


def pytest_configure(config: pytest.Config) -> None:
    parts.required()  # a misspelt CARILLON_REQUIRE is an error before the first test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the ends of the servers' logs with a failure."""
    report = yield
    if report.failed:
        for shown in running:
            report.sections += [(f"{name} of the stack", tail) for name, tail in shown.log_tails() if tail]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of xdist: its skips are told to the one who writes the summary."""
    if workeroutput := getattr(session.config, "workeroutput", None):
        workeroutput["missing"] = dict(parts.missing)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the one who writes the summary, when a worker has ended; one that crashed has nothing to tell."""
    parts.missing.update(getattr(node, "workeroutput", {}).get("missing", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if parts.missing:
        terminalreporter.section("MISSING PARTS: these were NOT tested", sep="!", red=True, bold=True)
        for name, times in sorted(parts.missing.items()):
            terminalreporter.line(f"{name}: {times} skipped; install it ({parts.PARTS[name].install})", red=True)
