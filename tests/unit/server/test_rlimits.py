"""Open files."""

import os
import resource

from app.server.rlimits import OWN, raise_nofile, too_few


def test_soft_becomes_hard() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        os._exit(0 if raise_nofile() == hard else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_is_too_few_for_the_clients_is_said_in_one_line() -> None:
    assert too_few(1_048_576, 0) is None
    assert too_few(50_000 + OWN, 50_000) is None
    for limit, most, said in (
        (50_000, 50_000, "can hold 49744 clients, not CARILLON_MAX_CONNECTIONS=50000"),
        (1024, 0, "can hold 768 clients, and then no more"),
        (100, 0, "can hold 0 clients"),
    ):
        why = too_few(limit, most)
        assert why is not None
        assert why.startswith(f"{limit} open files")
        assert said in why
        assert "\n" not in why
