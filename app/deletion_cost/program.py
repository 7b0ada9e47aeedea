"""The process: until SIGTERM or Ctrl-C, which end it at once."""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

from app.deletion_cost.kube_api import KubeApi
from app.deletion_cost.writer import Writer
from app.telemetry import logs


def run(selector: str, *, interval: float, rate: float, account: Path) -> None:
    """Returns after a signal. Raises SettingsError where this is no pod with a service account."""
    api = KubeApi.in_pod(os.environ, account)
    logs.configure("info")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for each request
    writer = Writer(api, selector, interval=interval, rate=rate)
    logs.get("deletion-cost").info("started", selector=selector, interval=interval, rate=rate)
    with suppress(asyncio.CancelledError):
        asyncio.run(_until_signalled(writer))


async def _until_signalled(writer: Writer) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await writer.run()
