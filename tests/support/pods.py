"""Single pods on addresses of their own, as a cluster has them: all on the same ports."""

from pathlib import Path
from signal import SIGTERM
from typing import Self

import httpx

from local.child import Child, Service, stop
from local.stack import POD_COMMAND, ROOT
from tests.support.stack import STANDIN, hermetic_environment
from tests.support.waiting import wait_until


class Pod:
    """A gateway of one worker with a broker of its own, or, with `standin`, what says what it was sent."""

    def __init__(
        self, folder: Path, address: str, ports: tuple[int, int], *, standin: bool = False, **env: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address, self.port = address, ports[0]
        self.public, self.internal = (f"{address}:{port}" for port in ports)
        settings = {
            "CARILLON_AUTH_TIMEOUT": "600",
            "CARILLON_DEV": "1",
            "CARILLON_REDIS_URL": "memory://",
            "CARILLON_BIND_HOST": address,
            "CARILLON_PUBLIC_PORT": str(ports[0]),
            "CARILLON_INTERNAL_PORT": str(ports[1]),
            "CARILLON_POD_NAME": f"pod-{address}",
            "CARILLON_DRAIN_DELAY": "0",
            "CARILLON_DRAIN_TIMEOUT": "2",
        }
        self._child = Child(
            Service(
                name=f"pod-{address}",
                command=STANDIN if standin else POD_COMMAND,
                log=folder / f"pod-{address}.log",
                env=hermetic_environment() | {"WEB_CONCURRENCY": "1"} | settings | env,
                folder=ROOT,
                is_ready=lambda: self._answers,
                stop_signal=SIGTERM,
                patience=8,
            )
        )

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop([self._child])

    def start(self) -> None:
        """Returns at once; `wait_ready` waits."""
        self._child.start()

    def wait_ready(self) -> None:
        wait_until(lambda: self._answers or not self._child.running, f"the pod at {self.address}", timeout=30)
        assert self._child.running, self._child.log_tail(40)

    def kill(self) -> None:
        """Kill -9 of all of its processes."""
        self._child.sweep()
        self._child.wait()

    @property
    def _answers(self) -> bool:
        try:
            return (
                httpx.get(f"http://{self.internal}/readyz", trust_env=False, verify=False, timeout=1).status_code == 200
            )
        except httpx.TransportError:
            return False
