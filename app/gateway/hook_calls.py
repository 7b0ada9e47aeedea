"""Calls what a user of the kit wrote in `app/hooks.py`: with a timeout, and so that a failure hurts one client only."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from app.codes import INTERNAL, METHOD_NOT_FOUND, CommandError, Disconnect
from app.telemetry import logs, metrics
from app.telemetry.logs import Limited

if TYPE_CHECKING:
    from app.gateway.session import Session

log = Limited(logs.get("hooks"))

NAMES = ("on_connect", "on_subscribe", "on_publish", "on_rpc", "on_disconnect")


@dataclass(slots=True)
class Publishing:
    """A client's publication before it is sent; a hook may change `data` (JSON) and `tags`."""

    room: str
    data: bytes
    key: str | None = None
    tags: dict[str, str] | None = None


class HookCalls:
    """The hooks that `source`, a module or any object, defines. What it does not define costs nothing."""

    def __init__(self, source: object, timeout: float) -> None:
        self._hooks: dict[str, Any] = {name: getattr(source, name, None) for name in NAMES}
        self._timeout = timeout

    async def connect(self, session: "Session") -> None:
        """After the credentials were verified. Raises Disconnect where the hook refuses."""
        await self._call("on_connect", session)

    async def subscribe(self, session: "Session", room: str) -> bool | None:
        allowed: bool | None = await self._call("on_subscribe", session, room)
        return allowed

    async def publish(self, session: "Session", publishing: Publishing) -> bool | None:
        allowed: bool | None = await self._call("on_publish", session, publishing)
        return allowed

    async def rpc(self, session: "Session", method: str, data: bytes) -> bytes:
        """The hook's result as JSON. Raises CommandError 104 where there is no hook."""
        if self._hooks["on_rpc"] is None:
            raise CommandError(METHOD_NOT_FOUND)
        return msgspec.json.encode(await self._call("on_rpc", session, method, msgspec.json.decode(data)))

    async def disconnect(self, session: "Session", code: int) -> None:
        """Exactly once for each session that `connect` let in (H3)."""
        with contextlib.suppress(CommandError, Disconnect):  # counted already, and there is nobody left to tell
            await self._call("on_disconnect", session, code)

    async def _call(self, name: str, session: "Session", *args: object) -> Any:
        """Raises CommandError 100 for a hook that failed or took too long, and what the hook itself refuses with."""
        hook = self._hooks[name]
        if hook is None:
            return None
        began = time.perf_counter()
        try:
            return await asyncio.wait_for(_awaited(hook(session, *args)), self._timeout)
        except (CommandError, Disconnect):
            raise
        except TimeoutError:
            metrics.HOOK_ERRORS.labels(name, "timeout").inc()
            log.warning("hook.timeout", hook=name, session=session.id)
            raise CommandError(INTERNAL, f"{name} took too long") from None
        except Exception:
            metrics.HOOK_ERRORS.labels(name, "error").inc()
            log.error("hook.failed", hook=name, session=session.id, exc_info=True)
            raise CommandError(INTERNAL, f"{name} failed") from None
        finally:
            metrics.HOOK_SECONDS.labels(name).observe(time.perf_counter() - began)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
