"""The catalogue of error and close codes, the same for every protocol; `docs/protocol.md` is made from it.

Numbers follow the Centrifugal protocol, so that its SDKs act on them: a client comes back after a close code of
3000-3499 and stays away after 3500-3999. Below 3000 RFC 6455 section 7.4.1 rules.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """The answer to one command; the connection stays open. `temporary` means: the same command may succeed later."""

    code: int
    reason: str
    temporary: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class CloseCode:
    """Why the server ended a connection, and whether the client should come back."""

    code: int
    reason: str
    reconnect: bool
    meaning: str


INTERNAL = ErrorCode(
    100, "internal error", True, "Something failed on our side, or the outcome is unknown; retry with the same key."
)
UNAUTHORIZED = ErrorCode(101, "unauthorized", False, "No credentials yet, or they are not valid.")
UNKNOWN_ROOM = ErrorCode(102, "unknown room", False, "The room's prefix names no namespace.")
PERMISSION_DENIED = ErrorCode(103, "permission denied", False, "The namespace or the token does not allow this.")
METHOD_NOT_FOUND = ErrorCode(104, "method not found", False, "No such rpc method.")
ALREADY_SUBSCRIBED = ErrorCode(105, "already subscribed", False, "This session is in the room already.")
LIMIT_EXCEEDED = ErrorCode(106, "limit exceeded", False, "A limit on size or number was reached.")
BAD_REQUEST = ErrorCode(107, "bad request", False, "The message is malformed or its fields do not fit.")
NOT_AVAILABLE = ErrorCode(108, "not available", False, "The feature is off in this namespace.")
TOKEN_EXPIRED = ErrorCode(109, "token expired", False, "Fetch a new token and send it with `auth`.")
EXPIRED = ErrorCode(110, "expired", False, "The subscription's rights have expired.")
TOO_MANY_REQUESTS = ErrorCode(111, "too many requests", True, "The rate limit was hit; try again in a moment.")
UNRECOVERABLE = ErrorCode(112, "unrecoverable position", False, "The history no longer reaches the given position.")

ERRORS: tuple[ErrorCode, ...] = (
    INTERNAL,
    UNAUTHORIZED,
    UNKNOWN_ROOM,
    PERMISSION_DENIED,
    METHOD_NOT_FOUND,
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    BAD_REQUEST,
    NOT_AVAILABLE,
    TOKEN_EXPIRED,
    EXPIRED,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE,
)

NORMAL = CloseCode(1000, "normal closure", False, "The client asked to close (RFC 6455).")
PROTOCOL_ERROR = CloseCode(1002, "protocol error", True, "The client broke the WebSocket framing rules (RFC 6455).")
UNSUPPORTED_DATA = CloseCode(
    1003, "unsupported data", True, "A binary message on a text session, or the reverse (RFC 6455)."
)
INVALID_PAYLOAD = CloseCode(
    1007, "invalid payload", True, "A text message was not UTF-8, or a compressed one not deflate data (RFC 6455)."
)
POLICY_VIOLATION = CloseCode(
    1008,
    "policy violation",
    True,
    "A message was not whole within `message_timeout`, or in too many fragments (RFC 6455).",
)
MESSAGE_TOO_BIG = CloseCode(1009, "message too big", True, "A message was larger than `max_message_bytes` (RFC 6455).")
CLOSED = CloseCode(3000, "closed", True, "The server closed the connection without a more exact reason.")
SHUTDOWN = CloseCode(
    3001, "shutdown", True, "The node, or the edge before it, goes away; another one takes the client."
)
SERVER_ERROR = CloseCode(3004, "internal server error", True, "The session met an unexpected error.")
SESSION_EXPIRED = CloseCode(3005, "expired", True, "The token ran out and was not refreshed; come back with a new one.")
SUBSCRIPTION_EXPIRED = CloseCode(3006, "subscription expired", True, "A subscription's rights ran out.")
SLOW = CloseCode(3008, "slow", True, "The client did not read fast enough; come back and recover.")
WRITE_ERROR = CloseCode(3009, "write error", True, "The connection failed while writing.")
INSUFFICIENT_STATE = CloseCode(3010, "insufficient state", True, "The node lost track of the stream; recover.")
FORCE_RECONNECT = CloseCode(
    3011,
    "force reconnect",
    True,
    "The client is to connect anew, by the server API, for its age, or as its pod has more than its share.",
)
NO_PONG = CloseCode(3012, "no pong", True, "No sign of life came after a ping within `pong_timeout`.")
TOO_MANY_MESSAGES = CloseCode(
    3013, "too many requests", True, "Commands, or control frames of WebSocket, kept coming far above the rate limit."
)
INVALID_TOKEN = CloseCode(3500, "invalid token", False, "The credentials are not valid, revoked, or another user's.")
BAD_MESSAGE = CloseCode(3501, "bad request", False, "The client sent what is not a message of this protocol.")
STALE = CloseCode(3502, "stale", False, "No credentials came within `auth_timeout`.")
FORCE_DISCONNECT = CloseCode(
    3503, "force disconnect", False, "The server API disconnected the user, or took it out of a room."
)
CONNECTION_LIMIT = CloseCode(3504, "connection limit", False, "The user has `max_user_connections` already.")
ROOM_LIMIT = CloseCode(3505, "room limit", False, "The session kept subscribing above `max_subscriptions`.")
ACCESS_DENIED = CloseCode(3507, "permission denied", False, "A hook refused the connection.")
NOT_SUPPORTED = CloseCode(3508, "not available", False, "The server does not offer what the client asked for.")

CLOSES: tuple[CloseCode, ...] = (
    NORMAL,
    PROTOCOL_ERROR,
    UNSUPPORTED_DATA,
    INVALID_PAYLOAD,
    POLICY_VIOLATION,
    MESSAGE_TOO_BIG,
    CLOSED,
    SHUTDOWN,
    SERVER_ERROR,
    SESSION_EXPIRED,
    SUBSCRIPTION_EXPIRED,
    SLOW,
    WRITE_ERROR,
    INSUFFICIENT_STATE,
    FORCE_RECONNECT,
    NO_PONG,
    TOO_MANY_MESSAGES,
    INVALID_TOKEN,
    BAD_MESSAGE,
    STALE,
    FORCE_DISCONNECT,
    CONNECTION_LIMIT,
    ROOM_LIMIT,
    ACCESS_DENIED,
    NOT_SUPPORTED,
)


class CommandError(Exception):
    """A command that cannot be carried out: becomes an `error` reply on a socket, a JSON error body over HTTP."""

    def __init__(self, error: ErrorCode, reason: str | None = None) -> None:
        self.error = error
        self.reason = reason or error.reason
        super().__init__(f"{error.code} {self.reason}")


class Disconnect(Exception):
    """Raised by a hook or a command to end the client's connection with a close code."""

    def __init__(self, close: CloseCode, reason: str | None = None) -> None:
        self.close = close
        self.reason = reason or close.reason
        super().__init__(f"{close.code} {self.reason}")
