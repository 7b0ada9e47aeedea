"""The command line that all peers share: `python -m bench.peers.NAME PORT [REDIS_URL]`."""

import sys


def port() -> int:
    """The port to listen on; ends the process with a line where there is none."""
    if len(sys.argv) < 2 or not sys.argv[1].isdecimal() or not 0 < int(sys.argv[1]) < 65_536:
        _usage("PORT is a number from 1 to 65535.")
    return int(sys.argv[1])


def redis_url() -> str:
    """The broker, for a peer that needs one; ends the process with a line where it is not named."""
    if len(sys.argv) < 3:
        _usage("This peer needs REDIS_URL, as in redis://127.0.0.1:6379.")
    return sys.argv[2]


def _usage(why: str) -> None:
    sys.exit(f"Usage: python -m bench.peers.NAME PORT [REDIS_URL]\n{why}")
