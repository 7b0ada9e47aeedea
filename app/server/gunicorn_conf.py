"""Configuration of gunicorn: `gunicorn -c python:app.server.gunicorn_conf "app.main:create_app()"`.

Read once, in the master. Wrong settings end it with one line each before anything is forked (N2).
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

from app import hosting
from app.server.pod import CAPACITY, PodState
from app.server.ports import why_not
from app.server.rlimits import raise_nofile, too_few
from app.server.rolling import RollingRestart
from app.settings import Settings, SettingsError, load
from app.telemetry import logs

METRICS = "PROMETHEUS_MULTIPROC_DIR"


def _refuse(reason: str) -> NoReturn:
    for line in reason.splitlines():
        print(f"carillon: {line}", file=sys.stderr)
    sys.exit(1)


def _load() -> Settings:
    try:
        return load()
    except SettingsError as error:
        _refuse(str(error))


_settings = _load()
_memory = Path("/dev/shm")
_has_memory = os.access(_memory, os.W_OK)
_own_metrics = METRICS not in os.environ
if _own_metrics:  # of this pod alone, as its port is (N10)
    _base = _memory if _has_memory else Path(os.environ.get("TMPDIR", "/tmp"))
    os.environ[METRICS] = str(_base / f"carillon-{os.geteuid()}-{_settings.public_port}")
logs.configure_structlog()

# gunicorn's settings
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
worker_class = "app.server.worker.Worker"
_host = f"[{_settings.bind_host}]" if ":" in _settings.bind_host else _settings.bind_host
bind = [f"{_host}:{port}" for port in dict.fromkeys((_settings.public_port, _settings.internal_port)) if port]
reuse_port = True  # a shared listener is unfair: 42 to 548 of 1,000 connections for each of four workers
backlog = 4096
keepalive = 75  # seconds; longer than Nginx keeps its idle connections to us, so that it is the one who closes
timeout = hosting.WORKER_TIMEOUT
graceful_timeout = hosting.graceful_timeout(_settings)
worker_tmp_dir = str(_memory) if _has_memory else None
control_socket_disable = True  # one file for all gunicorns of a user (N5)
forwarded_allow_ips = ",".join(_settings.trusted_proxies)
proc_name = "carillon"
accesslog = None
logconfig_dict = logs.config(_settings.log_level)

_restart: RollingRestart
_pod: PodState


def on_starting(server: Any) -> None:
    """In the master, once, before it binds or forks."""
    global _pod, _restart
    _check(server.cfg)
    taken = [reason for host, port in server.cfg.address if (reason := why_not(host, port))]
    if taken:
        _refuse("\n".join(taken))
    from app.telemetry import multiprocess  # reads where the metrics are

    try:
        multiprocess.prepare(Path(os.environ[METRICS]))
    except OSError as error:
        _refuse(f"{METRICS}: {error}")
    few = too_few(raise_nofile(), _settings.max_connections)
    if few:
        server.log.warning(few)
    _pod = PodState.create(server.cfg.workers)
    _restart = RollingRestart(server, _pod, _settings)


def _check(cfg: Any) -> None:
    """What gunicorn makes of this file, its command line and GUNICORN_CMD_ARGS."""
    if cfg.worker_class_str != worker_class:
        _refuse(
            f"gunicorn's worker_class of {cfg.worker_class_str} does not serve the gateway: leave it {worker_class}"
        )
    if cfg.bind != bind:
        _refuse("gunicorn's bind is made from CARILLON_BIND_HOST, _PUBLIC_PORT and _INTERNAL_PORT: set those")
    try:
        hosting.check_workers(_settings, cfg.workers)
        hosting.check_timeouts(_settings, cfg.graceful_timeout, cfg.timeout)
    except SettingsError as error:
        _refuse(str(error))
    if cfg.workers > CAPACITY:
        _refuse(f"WEB_CONCURRENCY: a pod has room for {CAPACITY} workers, not {cfg.workers}")


def pre_fork(server: Any, worker: Any) -> None:
    """In the master: the new worker gets the lowest free slot."""
    taken = {other.slot.index for other in server.WORKERS.values()}
    worker.slot = _pod.slot(next(index for index in range(CAPACITY) if index not in taken))
    worker.slot.claim()
    worker.settings = _restart.settings


def child_exit(server: Any, worker: Any) -> None:
    """In the master, also after SIGKILL of a worker (N10)."""
    from app.telemetry import multiprocess

    worker.slot.release()
    multiprocess.forget(worker.slot.index)


def on_exit(server: Any) -> None:
    """In the master, at its end."""
    if _own_metrics:
        shutil.rmtree(os.environ[METRICS], ignore_errors=True)
