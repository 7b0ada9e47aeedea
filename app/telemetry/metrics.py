"""The catalogue of metrics, from which their documentation is made. No label ever names a room, user or client.

What happens per message is counted in `counters.Counters`; only rare events and gauges are set here directly.
"""

from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from app import __version__
from app.telemetry import multiprocess as _multiprocess  # noqa: F401 - decides where the values below are kept

# How the values of several workers become one (N10): counts are summed, of ages and lags the worst one is taken, of
# limits and of yes/no the least. `live`: a dead worker no longer counts.
Mode = Literal["livesum", "livemax", "livemin"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue; `mode` is empty but for gauges."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    mode: str = ""


CATALOGUE: list[Metric] = []

disable_created_metrics()  # type: ignore[no-untyped-call]


def _counter(name: str, help: str, *labels: str) -> Counter:
    CATALOGUE.append(Metric(name, "counter", labels, help))
    return Counter(name, help, labels)


def _gauge(name: str, mode: Mode, help: str, *labels: str) -> Gauge:
    CATALOGUE.append(Metric(name, "gauge", labels, help, mode))
    return Gauge(name, help, labels, multiprocess_mode=mode)


def _histogram(name: str, help: str, *labels: str) -> Histogram:
    CATALOGUE.append(Metric(name, "histogram", labels, help))
    return Histogram(name, help, labels, buckets=SECONDS)


# Connections
CONNECTIONS = _gauge("carillon_connections", "livesum", "Open client connections.")
CONNECTION_CAPACITY = _gauge(
    "carillon_connection_capacity", "livesum", "Connections that the workers may hold together; 0: no limit."
)
CONNECTIONS_OPENED = _counter("carillon_connections_opened_total", "Connections accepted.", "transport")
CONNECTIONS_OPENED.labels("websocket")  # 0 from the start: who is refused is compared with who came in
CONNECTIONS_CLOSED = _counter("carillon_connections_closed_total", "Connections ended, by close code.", "code")
UPGRADES_REFUSED = _counter("carillon_upgrades_refused_total", "Upgrades answered with an HTTP error.", "reason")
SESSIONS_MOVED = _counter(
    "carillon_sessions_moved_total", "Sessions told to connect anew; reason: age, share.", "reason"
)
ABOVE_SHARE = _gauge(
    "carillon_above_share", "livesum", "Workers whose pod holds more than its share of the sessions, and refuses some."
)
REVOCATIONS = _gauge(
    "carillon_revocations", "livemin", "Tokens, and users whose older tokens, are refused before they expire."
)
OUTBOX_BYTES = _gauge("carillon_outbox_bytes", "livesum", "Bytes that wait in outboxes for slow clients.")
DRAIN_REMAINING = _gauge("carillon_drain_remaining", "livesum", "Sessions that a drain has still to close.")

# Rooms and messages
ROOMS = _gauge("carillon_rooms", "livesum", "Rooms with local members, summed over the nodes.")
SUBSCRIPTIONS = _gauge("carillon_subscriptions", "livesum", "Memberships of connections in rooms.")
MESSAGES_RECEIVED = _counter("carillon_messages_received_total", "Messages from clients, by type.", "type")
ERRORS = _counter("carillon_errors_total", "Error replies, by code.", "code")
PUBLICATIONS_RECEIVED = _counter(
    "carillon_publications_received_total", "Publications heard from the broker.", "namespace"
)
PUBLICATIONS_PUBLISHED = _counter(
    "carillon_publications_published_total", "Publications that the broker accepted from this node.", "namespace"
)
DELIVERIES = _counter("carillon_deliveries_total", "Publications handed to members.", "namespace")
SLOW_CONSUMERS = _counter("carillon_slow_consumers_total", "Times that a full outbox met its policy.", "policy")
SKIPPED = _counter("carillon_skipped_total", "Publications left out for a slow member, by policy.", "policy")
RECOVERIES = _counter("carillon_recoveries_total", "Clients that came back with a position, by outcome.", "outcome")
REPAIRS = _counter("carillon_repairs_total", "Gaps in what a node heard, by outcome.", "outcome")
for _outcome in ("repaired", "insufficient"):
    REPAIRS.labels(_outcome)  # 0 from the start: `increase()` does not see what a counter begins with
PRESENCE_SESSIONS = _gauge(
    "carillon_presence_sessions", "livesum", "Memberships in rooms whose members are kept.", "namespace"
)
PRESENCE_UPDATES = _counter(
    "carillon_presence_updates_total", "Times that the broker was told who is in a room.", "namespace"
)
PRESENCE_ERRORS = _counter(
    "carillon_presence_errors_total", "Times that it could not be told; the next time makes it good.", "namespace"
)
UNREADABLE = _counter(
    "carillon_unreadable_total", "Messages between nodes that another release wrote and this one cannot read.", "kind"
)
LIMIT_HITS = _counter("carillon_limit_hits_total", "Times that a limit was reached, by the setting's name.", "limit")

# The broker
BROKER_CONNECTED = _gauge("carillon_broker_connected", "livemin", "1 while commands and subscriptions are connected.")
BROKER_ECHO_AGE = _gauge(
    "carillon_broker_echo_age_seconds", "livemax", "Time since a node last heard itself through the broker."
)
BROKER_RECONNECTS = _counter("carillon_broker_reconnects_total", "Connections to the broker made anew after a loss.")
BROKER_PUBLISH_SECONDS = _histogram("carillon_broker_publish_seconds", "Duration of publishing, retries included.")
HISTORY_HOLES = _counter(
    "carillon_history_holes_total", "Histories found with publications missing in between; a new epoch began."
)
BROKER_PUBLISH_ERRORS = _counter("carillon_broker_publish_errors_total", "Publications that the broker did not take.")

# Hooks
HOOK_SECONDS = _histogram("carillon_hook_seconds", "Duration of hooks.", "hook")
HOOK_ERRORS = _counter("carillon_hook_errors_total", "Hooks that failed; kind: error, timeout.", "hook", "kind")
OFFLOAD_PENDING = _gauge("carillon_offload_pending", "livesum", "Calls of offload() that wait or run.")
OFFLOAD_SECONDS = _histogram("carillon_offload_seconds", "Duration of offload(), the wait included.")

# The node
BUILD_INFO = _gauge("carillon_build_info", "livemin", "1; its label is the release that runs.", "version")
BUILD_INFO.labels(__version__).set(1)
READY = _gauge("carillon_ready", "livemin", "1 while every worker of the pod is ready.")
LOOP_LAG = _gauge("carillon_loop_lag_seconds", "livemax", "Worst delay of the event loop in the last seconds.")
HTTP_REQUESTS = _counter("carillon_http_requests_total", "HTTP responses, by route template.", "route", "status")
BAD_REQUESTS = _counter("carillon_http_bad_requests_total", "Connections that sent something other than HTTP.")
RESIDENT_BYTES = _gauge("carillon_process_resident_bytes", "livesum", "Resident memory of the workers.")
CPU_SECONDS = _counter("carillon_process_cpu_seconds_total", "User and system time of the workers.")
OPEN_FDS = _gauge("carillon_process_open_fds", "livesum", "Open file descriptors of the workers.")
MAX_FDS = _gauge("carillon_process_max_fds", "livemin", "Most file descriptors that one worker may have open.")
FREE_FDS = _gauge("carillon_process_free_fds", "livemin", "File descriptors that the worker with the fewest has left.")
MEMORY_USED = _gauge(
    "carillon_memory_used_bytes",
    "livemin",
    "Memory of the container, with the kernel's for its sockets, less what can be thrown away; 0: not known.",
)
MEMORY_LIMIT = _gauge(
    "carillon_memory_limit_bytes", "livemin", "Memory at which the kernel kills the container; 0: none, or not known."
)
