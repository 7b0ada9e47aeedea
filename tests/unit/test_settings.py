"""Settings: where values come from, and that what cannot work is refused in words (A5, N2, N7, N8, N9)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import GENERATED_PREFIX, Access, Namespace, Settings, SettingsError, SlowConsumer, load

LONG = "a-secret-of-thirty-two-characters"

Env = Callable[..., None]


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> Env:
    """Sets variables without their prefix; nothing of the developer's own environment is seen."""
    for name in os.environ:
        if name.startswith("CARILLON_"):
            monkeypatch.delenv(name)

    def set_(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"CARILLON_{name}", value)

    return set_


@pytest.fixture
def toml(tmp_path: Path, env: Env) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "carillon.toml"
        file.write_text(text)
        env(CONFIG=str(file))
        return file

    return write


def refusal(**overrides: object) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(**overrides)
    return str(refused.value).splitlines()


class TestSources:
    def test_everything_has_a_default(self) -> None:
        settings = load()
        assert settings.broker_url == "memory://"
        assert not settings.dev

    def test_environment_beats_file_beats_default(self, env: Env, toml: Callable[[str], Path]) -> None:
        toml("ping_interval = 40\npong_timeout = 20")
        env(PING_INTERVAL="50")
        settings = load()
        assert (settings.ping_interval, settings.pong_timeout, settings.ticket_ttl) == (50, 20, 60)

    @pytest.mark.parametrize("text", ["https://a.example,https://b.example", " https://a.example , https://b.example,"])
    def test_lists_accept_commas(self, env: Env, text: str) -> None:
        env(ALLOWED_ORIGINS=text)
        assert load().allowed_origins == ["https://a.example", "https://b.example"]

    def test_lists_of_the_file_are_lists_or_have_commas(self, toml: Callable[[str], Path]) -> None:
        toml('allowed_origins = ["https://a.example"]\napi_keys = "one,two"')
        settings = load()
        assert settings.allowed_origins == ["https://a.example"]
        assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]

    def test_secrets_are_not_shown(self, env: Env) -> None:
        env(TOKEN_HMAC_SECRET=LONG, API_KEYS="a-key", REDIS_URL="redis://u:a-password@h")
        assert not any(word in repr(load()) for word in (LONG, "a-key", "a-password"))


class TestNamespaces:
    def test_default_and_chat_always_exist(self) -> None:
        assert load().namespaces == {"default": Namespace(), "chat": Namespace()}

    def test_development_has_a_demo_with_history(self, env: Env) -> None:
        env(DEV="1")
        assert load().namespaces["demo"].history_size > 0

    def test_the_environment_overrides_options(self, env: Env) -> None:
        env(NAMESPACES__CHAT__HISTORY_SIZE="1000", NAMESPACES__CHAT__HISTORY_TTL="600", NAMESPACES__CHAT__ECHO="true")
        assert load().namespaces["chat"] == Namespace(history_size=1000, history_ttl=600, echo=True)

    def test_the_environment_adds_a_namespace_in_lower_case(self, env: Env) -> None:
        env(NAMESPACES__PRICES__SLOW_CONSUMER="conflate", NAMESPACES__PRICES__SUBSCRIBE="public")
        prices = load().namespaces["prices"]
        assert (prices.slow_consumer, prices.subscribe) == (SlowConsumer.CONFLATE, Access.PUBLIC)

    def test_environment_and_file_are_merged_option_by_option(self, env: Env, toml: Callable[[str], Path]) -> None:
        toml("[namespaces.chat]\nhistory_size = 5\necho = true\n[namespaces.Other-Case]\necho = true")
        env(NAMESPACES__CHAT__HISTORY_SIZE="9")
        assert load().namespaces["chat"] == Namespace(history_size=9, echo=True)
        assert load().namespaces["Other-Case"].echo

    def test_a_room_belongs_to_its_prefix(self) -> None:
        settings = load(namespaces={"default": Namespace(echo=True)})
        assert settings.namespace_of("lobby") is settings.namespaces["default"]
        assert settings.namespace_of("chat:lobby:2") is settings.namespaces["chat"]
        assert settings.namespace_of("nowhere:lobby") is None

    def test_history_refuses_policies_that_lose_unless_told(self, env: Env) -> None:  # O2
        env(NAMESPACES__CHAT__HISTORY_SIZE="10", NAMESPACES__CHAT__SLOW_CONSUMER="drop_oldest")
        (line,) = refusal()
        assert line.startswith("CARILLON_NAMESPACES__CHAT: history_size > 0 promises no loss")
        env(NAMESPACES__CHAT__LOSSY="1")
        assert load().namespaces["chat"].lossy

    def test_joins_and_leaves_cannot_be_told_where_nobody_keeps_them(self, env: Env) -> None:  # A1
        env(NAMESPACES__CHAT__JOIN_LEAVE="1")
        (line,) = refusal()
        assert line.startswith("CARILLON_NAMESPACES__CHAT: join_leave tells of changes in what presence keeps")
        env(NAMESPACES__CHAT__PRESENCE="1")
        assert load().namespaces["chat"].join_leave


class TestUnknownNames:
    @pytest.mark.parametrize(
        "name",
        ["PUBLIC_PORTT", "NAMESPACES", "NAMESPACES__CHAT", "NAMESPACES__CHAT__NO_SUCH", "NAMESPACES__CHAT__ECHO__X"],
    )
    def test_of_the_environment_are_refused(self, env: Env, name: str) -> None:
        env(**{name: "1"})
        assert refusal() == [f"CARILLON_{name}: no such setting"]

    def test_of_the_file_are_refused_with_its_name(self, toml: Callable[[str], Path]) -> None:
        file = toml("pong = 1\n[namespaces.chat]\nhistory = 2")
        assert sorted(refusal()) == [
            f"{file}: namespaces.chat.history: no such setting",
            f"{file}: pong: no such setting",
        ]

    def test_of_kubernetes_services_are_left_alone(self, env: Env) -> None:  # N8
        address = "tcp://10.0.0.1:80"
        env(PORT=address, PORT_80_TCP=address, PORT_80_TCP_ADDR="10.0.0.1", PORT_80_TCP_PROTO="tcp")
        env(SERVICE_HOST="10.0.0.1", SERVICE_PORT="80", SERVICE_PORT_HTTP="80", EDGE_SERVICE_HOST="10.0.0.2")
        load()

    def test_a_service_called_like_a_setting_does_not_set_it(self, env: Env) -> None:  # N8
        env(PUBLIC_PORT="tcp://10.0.0.1:80", INTERNAL_PORT="tcp://10.0.0.1:80")
        settings = load()
        assert (settings.public_port, settings.internal_port) == (8000, 9000)

    def test_a_port_that_kubernetes_did_not_set_is_a_mistake(self, env: Env) -> None:
        env(PORT="8080")
        assert refusal() == ["CARILLON_PORT: no such setting"]

    def test_names_that_others_read_are_allowed(self, env: Env) -> None:
        env(NGINX="/usr/sbin/nginx", VALKEY="x", PODS="2", REQUIRE="chromium")
        load()


class TestSecrets:
    def test_several_values(self, env: Env) -> None:  # N9
        env(TOKEN_HMAC_SECRET=f"{LONG}-1,{LONG}-2", API_KEYS="one,two")
        settings = load()
        assert [value.get_secret_value() for value in settings.token_hmac_secret] == [f"{LONG}-1", f"{LONG}-2"]
        assert [value.get_secret_value() for value in settings.api_keys] == ["one", "two"]

    @pytest.mark.parametrize("text", ["one,two", "one\ntwo\n", "one\r\ntwo\r\n", "one,\n two ,\n\n"])
    def test_from_a_file_by_line_or_comma(self, env: Env, tmp_path: Path, text: str) -> None:  # N9
        (tmp_path / "keys").write_bytes(text.encode())
        env(API_KEYS_FILE=str(tmp_path / "keys"))
        assert [key.get_secret_value() for key in load().api_keys] == ["one", "two"]

    def test_from_a_file_that_is_not_there(self, env: Env, tmp_path: Path) -> None:
        env(TOKEN_HMAC_SECRET_FILE=str(tmp_path / "none"))
        assert refusal() == [f"CARILLON_TOKEN_HMAC_SECRET_FILE: {tmp_path}/none: No such file or directory"]

    @pytest.mark.parametrize(("content", "reason"), [(b" \n,", "holds no secret"), (b"\xff", "not a text in UTF-8")])
    def test_from_a_file_that_holds_none(self, env: Env, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "keys").write_bytes(content)
        env(API_KEYS_FILE=str(tmp_path / "keys"))
        assert refusal() == [f"CARILLON_API_KEYS_FILE: {tmp_path}/keys: {reason}"]

    def test_from_two_places_at_once_are_refused(self, env: Env, tmp_path: Path) -> None:
        env(API_KEYS="one", API_KEYS_FILE=str(tmp_path / "keys"))
        assert refusal() == ["CARILLON_API_KEYS_FILE: CARILLON_API_KEYS is set too; only one of them may be"]

    @pytest.mark.parametrize("name", ["TOKEN_HMAC_SECRET", "API_KEYS"])
    def test_generated_ones_are_for_development(self, env: Env, name: str) -> None:  # N7
        env(**{name: f"{LONG},{GENERATED_PREFIX}{LONG}"})
        (line,) = refusal()
        assert line.startswith(f"CARILLON_{name}: a generated secret")
        env(DEV="1")
        load()

    def test_short_ones_are_for_development(self, env: Env) -> None:
        env(TOKEN_HMAC_SECRET="fifteen-bytes-1")
        (line,) = refusal()
        assert line.startswith("CARILLON_TOKEN_HMAC_SECRET: a secret of fewer than 16 bytes")
        env(DEV="1")
        load()

    @pytest.mark.parametrize("name", ["token_hmac_secret", "api_keys"])
    @pytest.mark.parametrize("value", ["", " "])
    def test_empty_ones_are_none_at_all(self, name: str, value: str) -> None:
        (line,) = refusal(dev=True, **{name: [LONG, value]})
        assert line == f"CARILLON_{name.upper()}: an empty value is no secret"


class TestWrongValues:
    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("PUBLIC_PORT", "x", "Input should be a valid integer, unable to parse string as an integer"),
            ("PUBLIC_PORT", "0", "Input should be greater than 0"),
            ("DEV", "maybe", "Input should be a valid boolean, unable to interpret input"),
            ("MAX_MESSAGE_BYTES", "-1", "Input should be greater than 0"),
            ("TICKET_TTL", "inf", "Input should be a finite number"),
            ("TICKET_TTL", "nan", "Input should be a finite number"),
            ("EXPIRY_SPREAD", "26", "Input should be less than or equal to 25"),
            ("NAMESPACES__CHAT__ECHO", "maybe", "Input should be a valid boolean, unable to interpret input"),
            ("NAMESPACES__CHAT__PUBLISH", "all", "Input should be 'nobody', 'public', 'token' or 'hook'"),
            ("NAMESPACES__CHAT__HISTORY_SIZE", "-1", "Input should be greater than or equal to 0"),
            ("LOG_LEVEL", "loud", "Input should be 'debug', 'info', 'warning' or 'error'"),
            ("KEY_PREFIX", "a{b}", "must not contain braces, spaces or control characters (P7)"),
            ("TOKEN_JWKS_URL", "file:///etc/passwd", "must be an http:// or https:// URL"),
            ("TRUSTED_PROXIES", "10.0.0.0/8,x", "'x' does not appear to be an IPv4 or IPv6 network"),
        ],
    )
    def test_are_named(self, env: Env, name: str, value: str, reason: str) -> None:
        env(**{name: value})
        assert refusal() == [f"CARILLON_{name}: {reason}"]

    @pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://", "null"])
    def test_origins_have_a_scheme_and_no_path(self, env: Env, origin: str) -> None:
        env(ALLOWED_ORIGINS=origin)
        (line,) = refusal()
        assert line.startswith(f"CARILLON_ALLOWED_ORIGINS: '{origin}' is no origin")

    def test_are_all_named_at_once(self, env: Env, toml: Callable[[str], Path]) -> None:
        file = toml("ping_interval = 'x'\n[namespaces.chat]\nhistory_ttl = 0")
        env(TICKET_TTL="0")
        assert sorted(refusal()) == [
            f"{file}: namespaces.chat.history_ttl: Input should be greater than 0",
            f"{file}: ping_interval: Input should be a valid number, unable to parse string as a number",
            "CARILLON_TICKET_TTL: Input should be greater than 0",
        ]

    def test_what_does_not_fit_together_is_named(self) -> None:
        assert refusal(history_meta_ttl=300, broker_deaf_after=1, ping_interval=10) == [
            "history_meta_ttl must exceed the history_ttl of every namespace (P5)",
            "broker_deaf_after must exceed broker_echo_interval",
            "pong_timeout must be shorter than ping_interval",
        ]

    def test_the_builtin_demo_counts_among_the_namespaces(self) -> None:
        assert load(history_meta_ttl=500).history_meta_ttl == 500
        assert refusal(history_meta_ttl=500, dev=True) == [
            "history_meta_ttl must exceed the history_ttl of every namespace (P5)"
        ]

    @pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 65])
    def test_names_of_namespaces(self, name: str) -> None:
        (line,) = refusal(namespaces={name: {}})
        assert line.startswith(f"CARILLON_NAMESPACES: {name!r} is no name")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [(b"ping_interval = ", "Invalid value"), (b"\xff", "can't decode byte"), (None, "No such file or directory")],
    )
    def test_a_file_that_cannot_be_read(self, env: Env, tmp_path: Path, content: bytes | None, reason: str) -> None:
        file = tmp_path / "carillon.toml"
        if content is not None:
            file.write_bytes(content)
        env(CONFIG=str(file))
        (line,) = refusal()
        assert line.startswith(f"CARILLON_CONFIG: {file}: ")
        assert reason in line

    def test_no_secret_is_repeated_in_an_error(self, env: Env) -> None:
        env(TOKEN_HMAC_SECRET="short-secret", API_KEYS="dev-key", ALLOWED_ORIGINS="x")
        text = "\n".join(refusal())
        assert len(text.splitlines()) == 3
        assert not any(word in text for word in ("short-secret", "dev-key"))


def test_every_setting_is_described() -> None:
    for model in (Settings, Namespace):
        for name, field in model.model_fields.items():
            assert field.description, name
