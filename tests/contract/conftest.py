"""The brokers that the contract is tried on, and the servers behind them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.settings import Settings
from tests.support.brokers import Pair, hearing, settings_for
from tests.support.valkey import ClusterOfThree, Server, Trio, server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that no test kills, configures or flushes."""
    with server(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfThree]:
    with ClusterOfThree(tmp_path_factory.mktemp("cluster")).running() as running:
        yield running


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with Trio(tmp_path_factory.mktemp("sentinel")).running() as running:
        yield running


@pytest.fixture(params=["memory", "redis", "sentinel", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """The address of each kind of broker in turn."""
    if request.param == "memory":
        return "memory://"
    server_fixture = {"redis": "valkey", "sentinel": "trio", "cluster": "cluster"}[request.param]
    found: str = request.getfixturevalue(server_fixture).url
    return found


@pytest.fixture
def settings(url: str) -> Settings:
    return settings_for(url)


@pytest.fixture
async def pair(settings: Settings) -> AsyncIterator[Pair]:
    """A broker, and what its node hears."""
    async with hearing(settings) as made:
        yield made
