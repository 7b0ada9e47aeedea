"""Every option of the gateway: its default, its unit, what zero means; `docs/settings.md` is made from this file.

Values come from the environment (`CARILLON_*`), then from the TOML file that `CARILLON_CONFIG` names, then from the
defaults below. An unknown key is an error (A5), but for the names that Kubernetes injects for Services (N8).
"""

import os
import re
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.settings_sources import (
    PREFIX,
    SECRETS,
    Environment,
    TomlFile,
    explain,
    refuse_unknown_names,
    secret_files,
    split,
)
from app.settings_sources import (
    SettingsError as SettingsError,  # raised by `load`, so it is to be had here
)

NAMESPACE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")

#: How secrets begin that `make run` generates; refused where `dev` is off (N7).
GENERATED_PREFIX = "dev-"

#: RFC 7518 section 3.2 asks for 32 bytes; below this one, a stolen token gives the secret away.
MIN_HMAC_SECRET = 16


class SlowConsumer(StrEnum):
    """What happens to a member whose outbox is full."""

    DISCONNECT = "disconnect"
    DROP_OLDEST = "drop_oldest"
    CONFLATE = "conflate"


class Access(StrEnum):
    """Who may do something in a namespace."""

    NOBODY = "nobody"
    PUBLIC = "public"
    TOKEN = "token"
    HOOK = "hook"


def option(
    default: Any,
    description: str,
    *,
    unit: str = "",
    zero: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> Any:
    """A field of the catalogue. `zero` says what 0 means where it does not simply mean zero."""
    if isinstance(default, int | float) and not isinstance(default, bool) and ge is None and gt is None:
        ge = 0
    return Field(
        default=default,
        description=description,
        ge=ge,
        gt=gt,
        le=le,
        validate_default=True,
        json_schema_extra={"unit": unit, "zero": zero},
    )


CommaList = Annotated[list[str], NoDecode, BeforeValidator(split)]
SecretList = Annotated[list[SecretStr], NoDecode, BeforeValidator(split)]


class Namespace(BaseModel):
    """The options of all rooms that share a prefix; a room without `:` belongs to the namespace `default`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    subscribe: Access = option(
        Access.TOKEN,
        "Who may subscribe: `nobody`, `public` (everybody with a session), `token` (claim `rooms`), `hook`.",
    )
    publish: Access = option(
        Access.TOKEN, "Which clients may publish: `nobody`, `public`, `token` (claim `publish`), `hook`."
    )
    echo: bool = option(False, "Whether a publisher that is in the room gets its own publications.")
    presence: bool = option(False, "Whether it is kept who is in a room, so that members may ask for `presence` (A1).")
    join_leave: bool = option(False, "Whether members are told who came and who left; needs `presence`.")
    history_size: int = option(
        0, "Publications kept for each room.", unit="publications", zero="no history: at most once, no positions (P1)"
    )
    history_ttl: float = option(
        300, "How long a room's history lives after its last publication (P5).", unit="seconds", gt=0
    )
    lossy: bool = option(False, "Allows `drop_oldest`, `conflate` and `conflate_ms` in a namespace with history (O2).")
    slow_consumer: SlowConsumer = option(
        SlowConsumer.DISCONNECT,
        "When a member's outbox is full: `disconnect` (3008, come back and recover), `drop_oldest`, or `conflate` "
        "(keep the newest per `key`; what has no key fills the outbox, which then disconnects).",
    )
    coalesce_ms: int = option(
        0, "Publications of a room within this window leave as one write.", unit="milliseconds", zero="off", le=1000
    )
    coalesce_rate: float = option(
        0,
        "Publications per second from which `coalesce_ms` applies: one that comes sooner after the one before it waits "
        "for its window, any other leaves at once.",
        unit="1/second",
        zero="always",
        ge=0,
    )
    conflate_ms: int = option(
        0,
        "Within this window only the newest publication per `key` is sent.",
        unit="milliseconds",
        zero="off",
        le=60_000,
    )
    max_publication_bytes: int = option(65_536, "Largest `data` of a publication, as JSON.", unit="bytes", gt=0)
    publish_rate: float = option(
        0, "Publications per second and connection in this namespace.", unit="1/second", zero="no limit of its own"
    )
    publish_burst: int = option(10, "How many may come at once above `publish_rate`.", unit="publications", gt=0)

    @model_validator(mode="after")
    def _presence_is_kept(self) -> Self:
        if self.join_leave and not self.presence:
            raise ValueError("join_leave tells of changes in what presence keeps: set presence = true")
        return self

    @model_validator(mode="after")
    def _losses_are_asked_for(self) -> Self:
        lossy = self.slow_consumer is not SlowConsumer.DISCONNECT or self.conflate_ms > 0
        if self.history_size > 0 and lossy and not self.lossy:
            raise ValueError(
                "history_size > 0 promises no loss, slow_consumer and conflate_ms ask for it: set lossy = true (O2)"
            )
        return self


class Settings(BaseSettings):
    """The options of one deployment; the same for all of its nodes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, allow_inf_nan=False
    )

    dev: bool = option(
        False,
        "Development mode: the demo, demo tokens, kill-my-worker, a namespace `demo` with history and presence (N7).",
    )
    redis_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="The broker: `memory://` (one process only), `redis://[user:password@]host:port[/db]`, "
        "`rediss://...?ca=FILE`, `redis+sentinel://h:p,h:p/master`, `redis+cluster://h:p,h:p`; `valkey` is an alias.",
    )
    pod_name: str = option("", "What `welcome.node` begins with; empty: the host name, in Kubernetes the pod's.")
    key_prefix: str = option("carillon:", "Separates deployments that share a Redis; starts every key and channel.")
    public_port: int = option(8000, "Port of what clients reach (N7).", gt=0, le=65_535)
    internal_port: int = option(
        9000, "Port of metrics, probes, `/api` and docs (N7).", zero="serve all of it on the public port", le=65_535
    )
    bind_host: str = option("0.0.0.0", "Address that the two ports are bound to.")

    # Credentials
    token_hmac_secret: SecretList = Field(
        default_factory=list,
        description="Secrets of HS256 tokens, comma-separated: the first signs, all verify (N9). 32 bytes or more each "
        "(RFC 7518); fewer than 16 are refused where `dev` is off. Also `CARILLON_TOKEN_HMAC_SECRET_FILE`.",
    )
    token_public_keys: CommaList = Field(
        default_factory=list,
        description="PEM files with public keys of tokens: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).",
    )
    token_jwks_url: str = option("", "JWKS document with the public keys of tokens; empty: none.")
    token_jwks_ttl: float = option(
        300, "How long a fetched JWKS is used; longer where it cannot be fetched again.", unit="seconds", gt=0
    )
    token_audience: str = option("", "Required `aud` of tokens; empty: not checked.")
    token_issuer: str = option("", "Required `iss` of tokens; empty: not checked.")
    token_leeway: float = option(5, "Clock difference tolerated in `exp` and `nbf`.", unit="seconds")
    token_cookie: str = option("carillon_token", "Name of the cookie that may carry a token; empty: none.")
    api_keys: SecretList = Field(
        default_factory=list,
        description="Keys of the server API, comma-separated, all valid (N9). Also `CARILLON_API_KEYS_FILE`.",
    )
    revocation_ttl: float = option(
        86_400,
        "How long a revoked token is refused where the call does not say when it expires: as long as tokens live, or "
        "longer.",
        unit="seconds",
        gt=0,
    )
    ticket_ttl: float = option(60, "How long a one-time ticket may be used.", unit="seconds", gt=0)
    allowed_origins: CommaList = Field(
        default_factory=list,
        description="Origins that browsers may connect from, e.g. `https://example.org`; `*`: any; empty: only the "
        "host that was asked. Rules CORS too (A6).",
    )
    expiry_spread: float = option(
        5, "Sessions whose tokens expire together are closed within this time after `exp` (A2).", unit="seconds", le=25
    )
    auth_timeout: float = option(10, "Time for the first credentials to come.", unit="seconds", gt=0)

    # Limits
    max_connections: int = option(
        0, "Connections of one node; above it upgrades get 503 (N4).", unit="connections", zero="no limit"
    )
    max_user_connections: int = option(
        0, "Connections of one user on all nodes; above it a session is closed with 3504.", zero="no limit"
    )
    max_address_connections: int = option(
        0, "Connections of one client address on one node; above it 429 (A3).", zero="no limit"
    )
    connect_rate: float = option(
        0, "New connections per second and node; above it 503.", unit="1/second", zero="no limit"
    )
    connect_burst: int = option(100, "How many may come at once above `connect_rate`.", gt=0)
    max_subscriptions: int = option(128, "Rooms of one connection; above it error 106.", unit="rooms", gt=0)
    max_message_bytes: int = option(
        65_536, "Largest inbound message, as sent and inflated; above it close 1009.", unit="bytes", gt=0
    )
    message_timeout: float = option(
        30,
        "Time for an inbound message to arrive, from its first byte to its last; then close 1008.",
        unit="seconds",
        gt=0,
    )
    message_rate: float = option(
        100,
        "Inbound messages per second and connection; above it error 111. As many control frames; above it close 3013.",
        unit="1/second",
        zero="no limit",
    )
    message_burst: int = option(200, "How many may come at once above `message_rate`.", unit="messages", gt=0)
    max_room_name: int = option(255, "Longest room name.", unit="bytes", gt=0, le=1024)
    outbox_bytes: int = option(
        262_144, "What waits for one slow client beyond its socket; above it the policy acts.", unit="bytes", gt=0
    )
    history_page: int = option(100, "Most publications in one `history` reply.", unit="publications", gt=0)
    presence_page: int = option(100, "Most members named in one `presence` reply.", unit="sessions", gt=0)
    max_body_bytes: int = option(1_048_576, "Largest HTTP body of `/api`; above it 413.", unit="bytes", gt=0)

    # Connections
    ping_interval: float = option(25, "How often a client is pinged.", unit="seconds", zero="never")
    pong_timeout: float = option(10, "How long a client may take to answer; then close 3012.", unit="seconds", gt=0)
    send_buffer: int = option(65_536, "`SO_SNDBUF` of client sockets (O1).", unit="bytes", zero="the kernel's choice")
    native_send: bool = option(
        True, "Whether the fan-out's innermost loop runs in C where `python -m app build` has built it."
    )
    fanout_chunk: int = option(
        1000, "Writes of one publication after which the loop serves others (O5).", unit="members", gt=0
    )
    compression_min_bytes: int = option(
        1024,
        "Publications from this size on are compressed for clients that offer permessage-deflate (H7).",
        unit="bytes",
        zero="nothing is compressed, either way",
    )
    trusted_proxies: CommaList = Field(
        default_factory=lambda: ["127.0.0.1", "::1"],
        description="Addresses or networks whose `X-Forwarded-For` and `-Proto` are believed; `*`: all (A3).",
    )

    # Publishing and the broker
    idempotency_ttl: float = option(300, "How long a publish's key and result are kept (P4).", unit="seconds", gt=0)
    history_meta_ttl: float = option(
        2_592_000, "How long a room's epoch and top offset outlive its last use (P5).", unit="seconds", gt=0
    )
    broker_trust_restart: bool = option(
        False, "A single primary with AOF: a changed replication id is no rollback, the epoch goes on (P3)."
    )
    broker_wait_replicas: int = option(
        0,
        "How many replicas must have a publication in a room with history, or with a key, before `publish` answers. If "
        "they do not within a third of `broker_deaf_after`: error 100; it is published, a failover may lose it (P3).",
        unit="replicas",
        zero="the primary is enough",
    )
    broker_timeout: float = option(
        5, "How long one call to the broker may take, retries included; then error 100.", unit="seconds", gt=0
    )
    broker_max_pending: int = option(10_000, "Publications of a node under way at once; above it error 111.", gt=0)
    broker_echo_interval: float = option(
        1, "How often a node publishes to itself through the broker, to know that it hears.", unit="seconds", gt=0
    )
    broker_deaf_after: float = option(
        3, "Echo age above which a node counts as deaf, goes unready and reconnects.", unit="seconds", gt=0
    )
    broker_drain_after: float = option(
        15,
        "A node that stays deaf so long drains its pod, where the broker answers its commands and another node hears "
        "and takes clients (N1). With the broker away for all, everybody stays.",
        unit="seconds",
        zero="never",
    )
    broker_backoff_max: float = option(
        2, "Longest wait between two attempts to reach the broker (jitter included).", unit="seconds", gt=0
    )
    position_check: float = option(
        30,
        "How often a node compares its position in each room with the broker's, to find a lost last publication (R2).",
        unit="seconds",
        zero="never: a quiet room learns of it with its next publication",
    )
    unsubscribe_delay: float = option(
        5, "How long a node stays subscribed to a room after its last member left (R1).", unit="seconds"
    )
    insufficient_spread: float = option(
        5,
        "Members who missed something (`insufficient`) are told within this time, each at a moment of its own: it may "
        "come back with questions. Few are told sooner, and rooms without history before their next publication.",
        unit="seconds",
        zero="all at once",
    )
    presence_ttl: float = option(
        30,
        "How long the members of a node that died stay in `presence`; refreshed three times as often.",
        unit="seconds",
        gt=0,
    )
    presence_leave_delay: float = option(
        5,
        "Who is back within this time after their last session left a room was never away, as far as `join_leave` "
        "tells.",
        unit="seconds",
        zero="a leave is told with the next batch",
    )

    # Hooks
    hook_timeout: float = option(5, "How long a hook may take; then its client gets error 100.", unit="seconds", gt=0)
    offload_workers: int = option(2, "Processes of `offload()` on one node, started at first use.", gt=0)
    offload_pending: int = option(64, "Calls of `offload()` that may wait; above it error 111.", gt=0)
    offload_timeout: float = option(
        10, "How long one `offload()` may run; then its process is ended.", unit="seconds", gt=0
    )

    # Life of a node
    drain_delay: float = option(
        0,
        "After SIGTERM: how long a pod that already answers unready still takes connections, so that load balancers "
        "which go by readiness notice. Not needed behind the Nginx of this kit, which goes by 503.",
        unit="seconds",
        zero="the drain begins at once",
    )
    drain_timeout: float = option(
        10,
        "Then: how long the drain may take. The `goodbye`s are spread evenly over it, but for its last 2 seconds (of "
        "less than 8: its last quarter), which are for what is still unsent (N6).",
        unit="seconds",
        zero="all at once",
    )
    drain_rate: float = option(
        100,
        "Closes per second and node that a drain does not fall below, so that few sessions do not take all of "
        "`drain_timeout`. More of them go faster.",
        unit="1/second",
        zero="always all of `drain_timeout`",
    )
    connection_max_age: float = option(
        0,
        "How long a connection lasts, a quarter more or less, until its client is told to connect anew (3011): clients "
        "stay where they are when pods are added, so 14400 (4 h) is good where the number of pods changes by itself.",
        unit="seconds",
        zero="no limit",
    )
    rebalance_tolerance: float = option(
        0,
        "A pod that holds so much more than its share of all sessions (0.1: 10 %, but 10 sessions at least) tells the "
        "excess to connect anew (3011), and does not take them back by the edge's cookie. Not while pods come and go.",
        zero="off",
    )
    rebalance_rate: float = option(
        10,
        "Sessions per second and node that are told to move, by `connection_max_age` and `rebalance_tolerance` "
        "together.",
        unit="1/second",
        gt=0,
    )
    termination_grace: float = option(
        0,
        "What the supervisor grants from SIGTERM to SIGKILL: Kubernetes' `terminationGracePeriodSeconds` less what "
        "`preStop` takes, systemd's `TimeoutStopSec`. Too little for the drain is refused at start: it must be "
        "`drain_delay` + `drain_timeout` + 6 or more (N5).",
        unit="seconds",
        zero="not known, not checked",
    )
    max_loop_lag: float = option(1, "Event loop lag above which a node is not ready.", unit="seconds", gt=0)
    head_timeout: float = option(
        10,
        "Time for the first byte to come, and from then on for the whole request head (H5).",
        unit="seconds",
        gt=0,
    )
    max_head_bytes: int = option(32_768, "Largest request head; above it 431 (H5).", unit="bytes", gt=0)
    max_head_fields: int = option(100, "Most header fields of a request; above it 431 (H5).", gt=0)
    max_half_open: int = option(
        10_000,
        "Connections of a node whose request head is not complete; above it 503 on the public port (H5).",
        zero="no limit",
    )
    log_level: Literal["debug", "info", "warning", "error"] = option("info", "Least severe log line that is written.")
    app_dir: str = option("", "Directory of a built single-page app that Nginx serves under `/app`; empty: none.")

    namespaces: dict[str, Namespace] = Field(
        default_factory=dict,
        validate_default=True,
        description="Options of rooms by prefix: `[namespaces.chat]` in the file, `CARILLON_NAMESPACES__CHAT__ECHO` in "
        "the environment (names in lower case; others only in the file). `default` and `chat` always exist.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls), TomlFile(settings_cls)

    @field_validator("key_prefix")
    @classmethod
    def _fits_into_a_key(cls, prefix: str) -> str:
        if re.search(r"[{}\s\x00-\x1f\x7f]", prefix):
            raise ValueError("must not contain braces, spaces or control characters (P7)")
        return prefix

    @field_validator(*SECRETS)
    @classmethod
    def _are_secrets(cls, secrets: list[SecretStr], info: ValidationInfo) -> list[SecretStr]:
        for value in (secret.get_secret_value() for secret in secrets):
            if not value.strip():
                raise ValueError("an empty value is no secret")
            if info.data.get("dev", True):
                continue
            if value.startswith(GENERATED_PREFIX):
                raise ValueError(f"a generated secret ({GENERATED_PREFIX}...) is for CARILLON_DEV=1 only (N7)")
            if info.field_name == "token_hmac_secret" and len(value.encode()) < MIN_HMAC_SECRET:
                raise ValueError(f"a secret of fewer than {MIN_HMAC_SECRET} bytes can be guessed from a token")
        return secrets

    @field_validator("token_jwks_url")
    @classmethod
    def _can_be_fetched(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s]\S*", url):
            raise ValueError("must be an http:// or https:// URL")
        return url

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: scheme://host[:port] with nothing after it, or *")
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            if network != "*":
                ip_network(network)  # its ValueError says what is wrong
        return networks

    @field_validator("namespaces")
    @classmethod
    def _with_builtin(cls, namespaces: dict[str, Namespace], info: ValidationInfo) -> dict[str, Namespace]:
        for name in namespaces:
            if not NAMESPACE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: up to 64 letters, digits, '-' and '_', a letter first")
        builtin = {"default": Namespace(), "chat": Namespace()}
        if info.data.get("dev"):
            builtin["demo"] = Namespace(history_size=100, history_ttl=600, presence=True, join_leave=True)
        return builtin | namespaces

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        wrong = []
        if self.history_meta_ttl <= max(namespace.history_ttl for namespace in self.namespaces.values()):
            wrong.append("history_meta_ttl must exceed the history_ttl of every namespace (P5)")
        if self.broker_deaf_after <= self.broker_echo_interval:
            wrong.append("broker_deaf_after must exceed broker_echo_interval")
        if self.ping_interval and self.pong_timeout >= self.ping_interval:
            wrong.append("pong_timeout must be shorter than ping_interval")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @cached_property
    def broker_url(self) -> str:
        return self.redis_url.get_secret_value()

    def namespace_of(self, room: str) -> Namespace | None:
        """The options of `room`, or None where its prefix names no namespace (error 102)."""
        prefix, colon, _ = room.partition(":")
        return self.namespaces.get(prefix if colon else "default")


def load(**overrides: Any) -> Settings:
    """Reads the configuration. Raises SettingsError with one line for each thing that is wrong."""
    refuse_unknown_names(os.environ, Settings.model_fields, Namespace.model_fields)
    try:
        return Settings(**(secret_files(os.environ) | overrides))
    except ValidationError as error:
        raise SettingsError(explain(error, os.environ)) from None
