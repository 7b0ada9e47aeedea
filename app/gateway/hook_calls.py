"""Calls what a user of the kit wrote in `app/hooks.py`: with a timeout, and so that a failure hurts one client only."""

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from app import offload
from app.codes import ACCESS_DENIED, INTERNAL, METHOD_NOT_FOUND, SERVER_ERROR, CommandError, Disconnect
from app.gateway.client import Client
from app.gateway.publishing import Publishing
from app.telemetry import logs, metrics
from app.telemetry.logs import Limited
from app.wire.payload import checked_json

if TYPE_CHECKING:
    from app.gateway.session import Session

log = Limited(logs.get("hooks"))

#: Each hook with what it is called with; parameters beyond these are dependencies.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "on_connect": ("client",),
    "on_subscribe": ("client", "room"),
    "on_publish": ("client", "publication"),
    "on_rpc": ("client", "method", "data"),
    "on_disconnect": ("client", "code"),
}


class BadHooks(TypeError):
    """The hooks cannot be what their author meant; raised when the node starts."""


class HookFailed(CommandError):
    """The hook raised what it was not meant to, took too long, or gave what cannot be sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(INTERNAL, reason)


class HookCalls:
    """The hooks that `source`, a module or any object, defines. What it does not define costs nothing.

    Raises BadHooks."""

    def __init__(self, source: object, timeout: float) -> None:
        self.timeout = timeout
        self._hooks = _find(source)
        #: For each hook that has some: the parameters that are filled in at connect.
        self.parameters: dict[str, list[inspect.Parameter]] = {
            name: extra for name, hook in self._hooks.items() if (extra := _extra_parameters(name, hook))
        }

    def defines(self, name: str) -> bool:
        return name in self._hooks

    async def connect(self, session: "Session") -> None:
        """After the credentials were verified. Raises Disconnect, or the hook's own CommandError."""
        try:
            allowed = await self._call("on_connect", session)
        except HookFailed as failed:
            # Half let in is not in: the client comes back, maybe to a node where the hook works.
            raise Disconnect(SERVER_ERROR, failed.reason) from None
        if allowed is False:
            raise Disconnect(ACCESS_DENIED)

    async def subscribe(self, session: "Session", room: str) -> bool | None:
        allowed: bool | None = await self._call("on_subscribe", session, room)
        return allowed

    async def publish(self, session: "Session", publishing: Publishing, limit: int) -> bool | None:
        """The hook may have changed the publication, which is checked again: at most `limit` bytes."""

        def sealed(allowed: bool | None) -> bool | None:
            if allowed is not False:
                publishing.seal(limit)
            return allowed

        allowed: bool | None = await self._call("on_publish", session, publishing, result=sealed)
        return allowed

    async def rpc(self, session: "Session", method: str, data: bytes) -> bytes:
        """The hook's result as JSON. Raises CommandError 104 where there is no hook."""
        if "on_rpc" not in self._hooks:
            raise CommandError(METHOD_NOT_FOUND)
        result: bytes = await self._call("on_rpc", session, method, msgspec.json.decode(data), result=_as_json)
        return result

    async def disconnect(self, session: "Session", code: int) -> None:
        """Exactly once for each session that `connect` let in (H3)."""
        with contextlib.suppress(CommandError, Disconnect):  # counted already, and there is nobody left to tell
            await self._call("on_disconnect", session, code)

    async def _call(
        self, name: str, session: "Session", *args: object, result: Callable[[Any], Any] = lambda value: value
    ) -> Any:
        """What the hook gives, through `result`. Raises HookFailed, and what the hook itself refuses with.

        The caller's task has a context of its own (H1), in which `offload` finds this node's processes."""
        hook = self._hooks.get(name)
        if hook is None:
            return None
        offload.use(session.gateway.offload_pool)
        values = session.hook_values[name] if session.hook_values and name in session.hook_values else {}
        began = time.perf_counter()
        timer = asyncio.timeout(self.timeout)
        try:
            async with timer:
                value = await hook(Client(session), *args, **values)
            return result(value)
        except (CommandError, Disconnect, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _being_cancelled():
                raise
            # All else is the hook's own, a SystemExit too: it must not end the node.
            timed_out = isinstance(error, TimeoutError) and timer.expired()
            raise _failed(name, session, timed_out) from None
        finally:
            metrics.HOOK_SECONDS.labels(name).observe(time.perf_counter() - began)


def _failed(name: str, session: "Session", timed_out: bool) -> HookFailed:
    """Counts and logs; called while the error is handled."""
    metrics.HOOK_ERRORS.labels(name, "timeout" if timed_out else "error").inc()
    user = session.claims.user if session.claims is not None else None
    if timed_out:
        log.warning("hook.timeout", hook=name, session=session.id, user=user)
        return HookFailed(f"{name} took too long")
    log.error("hook.failed", hook=name, session=session.id, user=user, exc_info=True)
    return HookFailed(f"{name} failed")


def _being_cancelled() -> bool:
    """Whether somebody asked for the end of this task; else a hook let a cancellation of its own out."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _as_json(value: Any) -> bytes:
    data = msgspec.json.encode(value)
    try:
        return checked_json(data, len(data))
    except CommandError as error:  # the hook's fault, not the client's
        raise ValueError(error.reason) from None


def _find(source: object) -> dict[str, Callable[..., Any]]:
    found = {}
    for name in (name for name in dir(source) if name.startswith("on_")):
        hook = getattr(source, name)
        if hook is None or not callable(hook):
            continue
        if name not in ARGUMENTS:
            raise BadHooks(f"{name}: there is no such hook, only {', '.join(ARGUMENTS)}")
        if not (inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__)):
            raise BadHooks(f"{name}: must be `async def`; CPU work goes through `await offload(...)`")
        found[name] = hook
    return found


def _extra_parameters(name: str, hook: Callable[..., Any]) -> list[inspect.Parameter]:
    """The hook's parameters after those that it is called with, their annotations evaluated."""
    given = ARGUMENTS[name]
    signature = inspect.signature(hook)
    try:
        signature.bind_partial(*given)
    except TypeError:
        raise BadHooks(f"{name}: is called with ({', '.join(given)})") from None
    if len(signature.parameters) <= len(given):
        return []
    try:
        parameters = list(inspect.signature(hook, eval_str=True).parameters.values())
    except NameError as error:
        raise BadHooks(f"{name}: {error}; its annotations are needed at run time") from None
    return [p for p in parameters[len(given) :] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
