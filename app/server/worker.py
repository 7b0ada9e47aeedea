"""The gunicorn worker: one process, one event loop, one slot of the pod.

Imported by the master too, so it must not import what makes metrics: their files belong to the worker's slot.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn
from gunicorn.arbiter import Arbiter
from gunicorn.workers import base

from app.server import pod
from app.settings import Settings
from app.telemetry import multiprocess

PR_SET_PDEATHSIG = 1  # prctl(2)
BOOT_RETRY = 1.0  # seconds before gunicorn may try again to replace a worker that did not boot


class Worker(base.Worker):  # type: ignore[misc]  # gunicorn has no types
    """Hosts the application on our own server and protocols. `slot` and `settings` come from the master's pre_fork."""

    slot: pod.Slot
    settings: Settings
    sockets: list[Any]  # gunicorn's listeners, then our own

    def init_process(self) -> None:
        """Called after the fork; returns when the worker is to exit."""
        multiprocess.use_slot(self.slot.index)
        pod.enter(self.slot)
        try:
            self._stop_listening()
            super().init_process()
        except (Exception, SystemExit) as error:
            if self.age <= self.cfg.workers or not self._failed_to_boot(error):
                raise
            # gunicorn takes a failed boot as a reason to stop all other workers; they may well be healthy (N2).
            self.log.exception("A worker failed to boot and will be tried again")
            time.sleep(BOOT_RETRY)
            sys.exit(1)

    def _stop_listening(self) -> None:
        """Until the application has started: asyncio listens then. gunicorn does so right after the fork, and whoever
        is put into that queue waits for seconds, while the pod's other workers could serve."""
        listeners = [listener.sock for listener in self.sockets]
        self.sockets = [_bound_to(listener.getsockname(), listener.family) for listener in listeners]
        for listener in listeners:
            listener.close()

    def _failed_to_boot(self, error: BaseException) -> bool:
        if isinstance(error, SystemExit):
            return error.code in (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)
        return not self.booted

    def init_signals(self) -> None:
        """Until the server runs there is nothing to drain: a signal ends the process."""
        for sig in self.SIGNALS:
            signal.signal(sig, signal.SIG_DFL)
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(sig, self._leave)
        signal.signal(signal.SIGABRT, self.handle_abort)  # the master's answer to a worker that no longer notifies
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.siginterrupt(signal.SIGUSR1, False)
        self._end_with_master()

    def _leave(self, sig: int, frame: FrameType | None) -> None:
        os._exit(0)

    def _end_with_master(self) -> None:
        """Without a master a worker would go on taking requests for ever (N5). Elsewhere the server looks itself."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self.ppid:  # it died before we asked
            os._exit(0)

    def run(self) -> None:
        """Serves until a signal."""
        from app.server.server import LAST_ANSWERS, Server  # makes metrics: not in the master
        from app.server.state import NodeState

        config = uvicorn.Config(
            self.wsgi,
            interface="asgi3",
            loop="auto",  # uvloop where it can be imported
            http="app.server.arrival:Arrival",
            ws="app.server.websocket_protocol:WebSocketProtocol",
            ws_max_size=self.settings.max_message_bytes,
            ws_max_queue=16,
            ws_ping_interval=None,  # only the gateway pings: two systems at once close healthy connections
            ws_ping_timeout=None,
            ws_per_message_deflate=False,  # per connection it costs 35-100 KiB
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=True,
            forwarded_allow_ips=self.settings.trusted_proxies,
            workers=1,
            backlog=self.cfg.backlog,
            timeout_keep_alive=self.cfg.keepalive,
            timeout_graceful_shutdown=round(LAST_ANSWERS),
            reset_contextvars=True,  # on uvloop all callbacks of a listener share one context (H1)
        )
        server = Server(config, NodeState(self.settings), self.slot, notify=self.notify, master=self.ppid)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            for bound in self.sockets:  # its connections inherit this: in TIME_WAIT they must not hold the port
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            runner.run(server.serve(self.sockets))


def _bound_to(address: Any, family: int) -> socket.socket:
    """Shares the address with the other workers. Without SO_REUSEADDR: else what does not listen would not count as
    taken (N3)."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(address)
    except OSError:  # connections of another program wait there in TIME_WAIT, which the master was not held up by
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    bound.setblocking(False)
    return bound
