"""Whether the settings can work in a pod: its workers, and the time that its end takes (N2, N5)."""

import math

from app.settings import Settings, SettingsError

DRAIN_MARGIN = 5  # seconds between the end of the drain and gunicorn's SIGKILL of its workers
MASTER_MARGIN = 1  # seconds that the master may take after that
WORKER_TIMEOUT = 30  # seconds without a sign of life from the event loop, until gunicorn kills the worker
NOTIFY_INTERVAL = 1  # seconds between two signs of life


def check_workers(settings: Settings, workers: int) -> None:
    """Raises SettingsError where these settings cannot work in a pod of so many workers."""
    if workers < 1:
        raise SettingsError(f"WEB_CONCURRENCY: {workers} workers serve nobody")
    if workers > 1 and settings.broker_url.startswith("memory://"):
        raise SettingsError(
            f"CARILLON_REDIS_URL: memory:// reaches one process only, and this pod has {workers} workers: "
            "name a Redis, or set WEB_CONCURRENCY=1"
        )


def graceful_timeout(settings: Settings) -> int:
    """Seconds from SIGTERM until gunicorn kills workers that are still there."""
    return math.ceil(settings.drain_delay + settings.drain_timeout) + DRAIN_MARGIN


def check_timeouts(settings: Settings, graceful: int, worker_timeout: int = WORKER_TIMEOUT) -> None:
    """Raises SettingsError, one line each, where a drain would be cut off, or a healthy worker killed.

    `graceful`, `worker_timeout`: gunicorn's, in seconds, which its command line may have changed."""
    wrong = []
    if graceful < graceful_timeout(settings):
        wrong.append(
            f"gunicorn's graceful_timeout of {graceful} s cuts the drain off: drain_delay + drain_timeout + "
            f"{DRAIN_MARGIN} are {graceful_timeout(settings)} s"
        )
    stop = max(graceful, graceful_timeout(settings)) + MASTER_MARGIN
    if 0 < settings.termination_grace < stop:
        wrong.append(
            f"CARILLON_TERMINATION_GRACE: {settings.termination_grace:g} s cut the drain off: a stop may take {stop} s "
            "(gunicorn's graceful_timeout, which is drain_delay + drain_timeout + "
            f"{DRAIN_MARGIN} or more, + {MASTER_MARGIN})"
        )
    if 0 < worker_timeout <= settings.max_loop_lag + NOTIFY_INTERVAL:
        wrong.append(
            f"gunicorn's timeout of {worker_timeout} s kills workers that only lag: it must exceed max_loop_lag + "
            f"{NOTIFY_INTERVAL}, {settings.max_loop_lag + NOTIFY_INTERVAL:g} s"
        )
    if wrong:
        raise SettingsError("\n".join(wrong))
