"""Every rendering of the repository, one after the other."""

import pytest

from tests.support import manifests as support
from tests.support import parts
from tests.support.manifests import Manifests


@pytest.fixture(scope="session")
def _all_rendered() -> None:
    parts.require("helm")
    parts.require("kubectl")
    support.render_all()


@pytest.fixture(params=support.sets())
def manifests(request: pytest.FixtureRequest, _all_rendered: None) -> Manifests:
    """Each set of manifests that the repository can make."""
    return support.rendered(request.param)


@pytest.fixture
def production() -> Manifests:
    """The overlay that tests break in one place, to see that it is noticed."""
    return support.rendered("k8s production")


@pytest.fixture
def autoscaled() -> Manifests:
    return support.rendered("k8s production+autoscaling")
