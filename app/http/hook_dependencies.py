"""Hooks take FastAPI dependencies: they are resolved once, at the handshake, by FastAPI itself."""

import asyncio
import inspect
import time
from typing import Annotated, Any, get_args, get_origin

from fastapi import FastAPI, WebSocket
from fastapi.params import Depends
from fastapi.routing import APIWebSocketRoute
from starlette.types import Scope

from app.gateway.hook_calls import BadHooks, HookCalls
from app.telemetry import logs, metrics
from app.telemetry.logs import Limited

log = Limited(logs.get("hooks"))

#: Where the values are put in the scope. The double underscore of parameters divides the hook's name from its own.
_VALUES = "carillon.hook_values"

HookValues = dict[str, dict[str, Any]]


class DependenciesFailed(Exception):
    """A dependency raised what is no HTTP answer, or took too long."""


class UpgradeAnswered(Exception):
    """A dependency refused, and FastAPI has given its answer."""


class HookDependencies:
    """All dependencies of all hooks as the parameters of one endpoint, which FastAPI calls as it does any other.

    That endpoint ends before the client is let in: so does what a dependency does after `yield` (H3)."""

    def __init__(self, hooks: HookCalls, app: FastAPI) -> None:
        parameters = [
            parameter.replace(name=f"{hook}__{parameter.name}", kind=parameter.KEYWORD_ONLY)
            for hook, extra in hooks.parameters.items()
            for parameter in extra
            if _is_dependency(hook, parameter)
        ]
        self._timeout = hooks.timeout
        self._route: APIWebSocketRoute | None = None
        if parameters:
            scope_parameter = inspect.Parameter("websocket", inspect.Parameter.KEYWORD_ONLY, annotation=WebSocket)
            _collect = _collector(inspect.Signature([scope_parameter, *parameters]))
            self._route = APIWebSocketRoute("/", _collect, dependency_overrides_provider=app)

    def __bool__(self) -> bool:
        """Whether any hook has one."""
        return self._route is not None

    async def resolve(self, websocket: WebSocket) -> HookValues | None:
        """The values for this connection, None where no hook wants any. Raises DependenciesFailed, UpgradeAnswered."""
        if self._route is None:
            return None
        scope: Scope = dict(websocket.scope)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                await self._route.app(scope, websocket.receive, websocket.send)
        except TimeoutError:
            metrics.HOOK_ERRORS.labels("dependencies", "timeout").inc()
            log.warning("hook.timeout", hook="dependencies", exc_info=True)
            raise DependenciesFailed from None
        except Exception:
            metrics.HOOK_ERRORS.labels("dependencies", "error").inc()
            log.error("hook.failed", hook="dependencies", exc_info=True)
            raise DependenciesFailed from None
        finally:
            metrics.HOOK_SECONDS.labels("dependencies").observe(time.perf_counter() - began)
        if _VALUES not in scope:
            raise UpgradeAnswered
        values: HookValues = scope[_VALUES]
        return values


def _is_dependency(hook: str, parameter: inspect.Parameter) -> bool:
    """Raises BadHooks for a parameter that nobody would fill in."""
    metadata = get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()
    if any(isinstance(item, Depends) for item in (*metadata, parameter.default)):
        return True
    if parameter.default is parameter.empty:
        raise BadHooks(f"{hook}: its parameter {parameter.name!r} needs Annotated[..., Depends(...)], or a default")
    return False


def _collector(signature: inspect.Signature) -> Any:
    async def collect(websocket: WebSocket, **found: Any) -> None:
        values: HookValues = {}
        for name, value in found.items():
            hook, _, parameter = name.partition("__")
            values.setdefault(hook, {})[parameter] = value
        websocket.scope[_VALUES] = values

    collect.__signature__ = signature  # type: ignore[attr-defined]  # what FastAPI reads
    return collect
