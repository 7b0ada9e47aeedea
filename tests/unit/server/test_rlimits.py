"""Open files."""

import os
import resource

from app.server.rlimits import raise_nofile


def test_soft_becomes_hard() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        os._exit(0 if raise_nofile() == hard else 1)
    assert os.waitpid(child, 0)[1] == 0
