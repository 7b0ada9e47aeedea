"""Errors over HTTP: one JSON shape for all of them, and the status that belongs to each code of the catalogue."""

from collections.abc import Mapping

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app import codes
from app.codes import CommandError, ErrorCode

#: 404 for 108, as there is no such resource: a 5xx would look like a fault of ours, and be tried again.
_STATUS = {
    codes.INTERNAL: 503,
    codes.UNAUTHORIZED: 401,
    codes.UNKNOWN_ROOM: 404,
    codes.PERMISSION_DENIED: 403,
    codes.METHOD_NOT_FOUND: 404,
    codes.LIMIT_EXCEEDED: 413,
    codes.NOT_AVAILABLE: 404,
    codes.TOO_MANY_REQUESTS: 429,
    codes.UNRECOVERABLE: 409,
}
_OTHER_STATUS = 400

_CODE = {401: codes.UNAUTHORIZED, 403: codes.PERMISSION_DENIED, 404: codes.METHOD_NOT_FOUND}

#: For statuses that say so what to do, seconds.
RETRY_AFTER = "1"


class Problem(Struct):
    """What went wrong: `code` is of the catalogue in docs/protocol.md; `temporary`: the same may succeed later."""

    code: int
    reason: str
    temporary: bool

    @classmethod
    def of(cls, error: CommandError) -> "Problem":
        return cls(error.error.code, error.reason, error.error.temporary)


class Failure(Struct):
    """The body of every answer of 400 and above."""

    error: Problem


class HttpError(CommandError):
    """A CommandError with a status or headers of its own."""

    def __init__(
        self, error: ErrorCode, reason: str | None = None, *, status: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(error, reason)
        self.status = status
        self.headers = dict(headers or {})


def failure(error: CommandError) -> Response:
    """The HTTP answer to an error."""
    status = error.status if isinstance(error, HttpError) else _STATUS.get(error.error, _OTHER_STATUS)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if status in (429, 503):
        headers.setdefault("Retry-After", RETRY_AFTER)
    body = msgspec.json.encode(Failure(Problem.of(error)))
    return Response(body, status, headers, media_type="application/json")


def not_found() -> Response:
    return failure(CommandError(codes.METHOD_NOT_FOUND, "no such path"))


def install(app: FastAPI) -> None:
    """Gives every error of the application's HTTP routes this shape."""
    app.add_exception_handler(CommandError, _of_command)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_bug)


async def _of_command(request: Request, error: Exception) -> Response:
    assert isinstance(error, CommandError)
    request.app.state.gateway.counters.errors[error.error.code] += 1
    return failure(error)


async def _of_validation(_: Request, error: Exception) -> Response:
    """Names the first field that does not fit, without what was sent: it may be a secret."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return failure(CommandError(codes.BAD_REQUEST, f"{place}: {first['msg']}"))


async def _of_http(_: Request, error: Exception) -> Response:
    """What Starlette and FastAPI raise themselves: no such path or method, and the routes' own refusals."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return not_found()
    code = codes.INTERNAL if error.status_code >= 500 else _CODE.get(error.status_code, codes.BAD_REQUEST)
    return failure(HttpError(code, error.detail, status=error.status_code, headers=error.headers))


async def _of_bug(_: Request, error: Exception) -> Response:
    """An exception that nobody expected; the server logs it."""
    return failure(HttpError(codes.INTERNAL, status=500))
