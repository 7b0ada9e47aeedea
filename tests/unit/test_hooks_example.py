"""The example in docs/hooks.md: its hooks and its tests are run as they are printed."""

import inspect
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import pytest

from app import hooks
from app.gateway.hook_calls import ARGUMENTS
from app.testing import CommandFailed, ConnectionClosed, TestGateway
from tests.support.modules import module_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "hooks.md"
HOOKS, TESTS = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)[:2]


def imported(name: str, source: str, directory: Path) -> ModuleType:
    """A module as if `source` stood in a file of the author's."""
    file = directory / f"{name}.py"
    file.write_text(source)
    return module_of(file, name)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's tests, with its hooks where they and the offload processes can import them."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, source in (("moderated_chat", HOOKS), ("example_tests", TESTS)):
        monkeypatch.setitem(sys.modules, name, imported(name, source, tmp_path))
    return sys.modules["example_tests"]


@pytest.mark.parametrize("name", re.findall(r"^async def (test_\w+)", TESTS, re.MULTILINE))
async def test_the_example_works_as_printed(example: ModuleType, name: str) -> None:
    test: Callable[[], Awaitable[None]] = getattr(example, name)
    await test()


def test_the_example_uses_every_hook() -> None:
    assert re.findall(r"^async def (on_\w+)", HOOKS, re.MULTILINE) == list(ARGUMENTS)


async def test_the_examples_in_the_hooks_module_work_once_uncommented(tmp_path: Path) -> None:
    text = inspect.getdoc(hooks) or ""
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") or not line)
    example = imported("uncommented_hooks", code, tmp_path)
    del sys.modules["uncommented_hooks"]
    vars(example).update(BANNED={"mallory"}, STAFF={"ann"})
    assert all(hasattr(example, name) for name in ARGUMENTS)
    async with TestGateway(example) as node:
        with pytest.raises(ConnectionClosed, match="3507 banned"):
            await node.connect("mallory")
        ann, bob = await node.connect("ann", headers={"User-Agent": "bell/1"}), await node.connect("bob")
        assert (await ann.receive()).data == {"welcome": "ann"}
        assert await ann.rpc("agent") == "bell/1"
        await ann.subscribe("chat:staff")
        with pytest.raises(CommandFailed, match="103"):
            await bob.subscribe("chat:staff")
        with pytest.raises(CommandFailed, match="107, an object, please"):
            await bob.publish("chat:staff", "hello")
        await bob.publish("chat:staff", {"text": " hello "})
        message = await ann.receive()
        assert (message.data, message.tags) == ({"text": "hello"}, {"author": "bob"})
