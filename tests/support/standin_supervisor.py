"""Runs the real supervisor over small shell scripts, in a process of its own that tests can signal and kill.

`python standin_supervisor.py FOLDER STAGES DEADLINE`, where STAGES is JSON: [[[name, script], ...], ...]. A script is
ready when it has made the file `<name>.ready`."""

import json
import os
import sys
from pathlib import Path

from local.child import Service
from local.errors import LocalError
from local.supervisor import Supervisor


def main(folder: Path, stages: list[list[tuple[str, str]]], deadline: float) -> int:
    services = [
        [
            Service(
                name=name,
                command=("sh", "-c", script),
                log=folder / f"{name}.log",
                is_ready=(folder / f"{name}.ready").exists,
                env=os.environ,
                folder=folder,
                patience=1,
            )
            for name, script in stage
        ]
        for stage in stages
    ]
    try:
        Supervisor(services, lambda text: print(text, flush=True), deadline).run(lambda: print("ready", flush=True))
    except LocalError as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3])))
