"""An engine with the two images built, shared by all tests that need Docker."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.deploy import engine as engines
from tests.deploy import standins
from tests.deploy.engine import Engine
from tests.support import parts

GATEWAY, EDGE = "carillon-gateway:tested", "carillon-edge:tested"

log = logging.getLogger(__name__)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """With `GATEWAY` and `EDGE` built from this tree."""
    if "docker" in parts.required() and engines.find() is None:
        engines.install()
        parts.find.cache_clear()
    parts.require("docker")
    with ExitStack() as opened:
        made = engines.named()
        if not made.environ.get("DOCKER_HOST"):
            made = opened.enter_context(engines.own(standins.plugins()))
            standins.provide(made)
        began = time.monotonic()
        made.build(GATEWAY)
        made.build(EDGE, "--target", "edge")
        log.info("both images were built in %.0f s", time.monotonic() - began)
        yield made
