"""The short form of `make chaos`: the faults that happen to everybody, one after another on one site."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.faults import FAULTS, SHORT
from tests.chaos.load import Load
from tests.chaos.run import run
from tests.chaos.site import Kind, Site, open_site
from tests.support.stack import API_KEY

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

Ground = tuple[Site, Load]


@asynccontextmanager
async def under_load(folder: Path) -> AsyncIterator[Ground]:
    async with open_site(Kind.SINGLE, folder) as site:
        load = Load(site.edge, site.stack.token, site.apis, API_KEY)
        try:
            await load.start()
            yield site, load
        finally:
            await load.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with under_load(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.mark.parametrize("name", SHORT)
async def test_nothing_is_lost(name: str, ground: Ground) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    result = await run(fault, *ground)
    assert result.failures() == [], "\n".join(result.failures())
