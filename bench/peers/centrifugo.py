"""Centrifugo, where its binary is on PATH: writes a configuration for one core and becomes it (exec keeps the pid).

NOT TESTED: no binary was at hand. The keys are those of Centrifugo v6 as its source and documentation have them
(`internal/configtypes` of centrifugal/centrifugo; "Channel permission model" of its documentation)."""

import json
import os
import shutil
import sys
from pathlib import Path

from bench.peers import ROOT, arguments

FOLDER = ROOT / ".cache" / "bench"

#: Whoever connects may subscribe and publish, without a token. An anonymous client has no user id, and for such each
#: right needs both options. The memory engine, no history and no presence, as the other peers.
RIGHTS = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
}


def write_config(port: int, folder: Path = FOLDER) -> Path:
    """Writes the configuration file and returns its path."""
    config = {
        "http_server": {"address": "127.0.0.1", "port": port},
        "log": {"level": "warn"},
        "usage_stats": {"disabled": True},  # it would tell its makers about itself
        "client": {"allow_anonymous_connect_without_token": True},
        "channel": {"without_namespace": RIGHTS},
        # Bytes of one inbound message; the default of 65,536 has no room for a payload of 64 KB and its envelope.
        "websocket": {"message_size_limit": 1_048_576},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"centrifugo-{port}.json"
    path.write_text(json.dumps(config, indent=2))
    return path


def command(port: int, folder: Path = FOLDER) -> list[str]:
    """The command line that starts it on 127.0.0.1, with its configuration written before."""
    return ["centrifugo", "--config", str(write_config(port, folder))]


if __name__ == "__main__":
    os.environ.setdefault("GOMAXPROCS", "1")  # Go's runtime reads it: one core, as one worker has
    line = command(arguments.port())
    if shutil.which(line[0]) is None:
        sys.exit("No centrifugo is on PATH.")
    os.execvp(line[0], line)
