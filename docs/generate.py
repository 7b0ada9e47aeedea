"""Writes the parts of docs/ that are made from the code: `python docs/generate.py`; with `--check` it only compares."""

import re
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from app import codes  # noqa: E402
from app.settings import Namespace, Settings  # noqa: E402
from app.settings_sources import OTHER_NAMES, PREFIX, SECRETS  # noqa: E402
from app.telemetry import metrics  # noqa: E402
from app.wire.messages import COMMANDS, EVENTS  # noqa: E402
from docs.scale.tables import TABLES  # noqa: E402
from tuning import catalogue  # noqa: E402

#: What a successful command answers beside `id`.
REPLIES = {
    "auth": "`ok` with `user`, `expires_in` (seconds)",
    "subscribe": "`ok` with `room`, `epoch`, `offset`",
    "unsubscribe": "`ok` with `room`",
    "publish": '`ok` with `epoch`, `offset` (`""`, 0 in a room without history)',
    "presence": "`ok` with `room`, `sessions` and `users` (how many), `members`",
    "history": "`ok` with `room`, `epoch`, `offset` (the newest), `publications`",
    "rpc": "`ok` with `data`",
    "ping": "`pong`",
    "pong": "nothing",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), ["---"] * len(list(head)), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


# -- settings.md


def settings_page() -> str:
    others = [(f"`{PREFIX}{name}`", meaning) for name, meaning in OTHER_NAMES.items()]
    others += [
        ("`PORT`", "Port of the edge that `make run` starts (8080)."),
        ("`WEB_CONCURRENCY`", "Workers of one pod: 2 in `make run`, else 1. Needs a roll."),
        (
            "`PROMETHEUS_MULTIPROC_DIR`",
            "Where the workers of one pod share their metrics; emptied at start. Unset: made anew.",
        ),
        ("`FORWARDED_ALLOW_IPS`", "Not read: `CARILLON_TRUSTED_PROXIES` says who is believed."),
    ]
    return f"""# Settings

Made from `app/settings.py` by `make docs`.

Each setting is an environment variable, or a key in the TOML file that `CARILLON_CONFIG` names (in lower case, without
the prefix). The environment beats the file. Lists take commas. An unknown name is an error, except for those that
Kubernetes injects for Services. Wrong values end the start with one line each.

**Live or roll:** all of them need a roll. A worker reads its settings once; a changed value takes effect with SIGHUP
to the gunicorn master, which drains and replaces one worker after the other, or with a roll of the pods. The same holds
for secret files. Live are only the keys behind `token_jwks_url`, which follow their document.

{table(("name", "default", "unit", "zero means", "what it does"), map(_setting, Settings.model_fields.items()))}
Secrets ({", ".join(f"`{PREFIX}{name.upper()}`" for name in SECRETS)}) may come as files: the same name with `_FILE`.

## Namespaces

The options of all rooms that share a prefix. `default` (rooms without `:`) and `chat` always exist, with
`CARILLON_DEV=1` also `demo` with history. Others are added in the file as `[namespaces.NAME]`, or in the environment,
where names are in lower case: `CARILLON_NAMESPACES__PRICES__HISTORY_SIZE=1000` is an option of `prices`.

{table(("option", "default", "unit", "zero means", "what it does"), map(_option, Namespace.model_fields.items()))}
## Other names

{table(("name", "what it does"), others)}"""


def _setting(item: tuple[str, FieldInfo]) -> list[str]:
    name, field = item
    return [f"`{PREFIX}{name.upper()}`", *_field(field)]


def _option(item: tuple[str, FieldInfo]) -> list[str]:
    name, field = item
    return [f"`{name}`", *_field(field)]


def _field(field: FieldInfo) -> list[str]:
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    default = field.get_default(call_default_factory=True, validated_data={})
    return [_default(default), str(extra.get("unit", "")), str(extra.get("zero", "")), field.description or ""]


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, StrEnum):
        value = value.value
    if isinstance(value, list):
        value = ", ".join(value)
    if value is PydanticUndefined or value in ("", {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`" if value < 1e6 else f"`{value:.0f}`"
    return f"`{value}`"


# -- protocol.md


def commands() -> str:
    rows = [(f"`{_tag(kind)}`", _fields(kind), REPLIES[_tag(kind)], _words(kind)) for kind in COMMANDS]
    return table(("type", "fields", "success", "what it does"), rows)


def events() -> str:
    return table(
        ("type", "fields", "what it says"), [(f"`{_tag(kind)}`", _fields(kind), _words(kind)) for kind in EVENTS]
    )


def code_tables() -> str:
    errors = [
        (str(error.code), error.reason, "yes" if error.temporary else "no", error.meaning) for error in codes.ERRORS
    ]
    closes = [
        (str(close.code), close.reason, "come back" if close.reconnect else "stay away", close.meaning)
        for close in codes.CLOSES
    ]
    return (
        "`error` replies; `temporary` means that the same command may succeed later.\n\n"
        + table(("code", "reason", "temporary", "meaning"), errors)
        + "\n## Close codes\n\n"
        + table(("code", "reason", "client", "meaning"), closes)
    )


def _tag(kind: type[Struct]) -> str:
    return str(kind.__struct_config__.tag)


def _words(kind: type[Struct]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _fields(kind: type[Struct]) -> str:
    """`name: type`; a question mark where it may be left out."""
    shown = [
        f"`{field.encode_name}{'' if field.required else '?'}: {_type(field.type)}`"
        for field in msgspec.structs.fields(kind)
        if field.encode_name != "id"
    ]
    return ", ".join(shown) or "none"


def _type(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _type(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        parts = [_type(part) for part in typing.get_args(kind) if part not in (type(None), msgspec.UnsetType)]
        return " or ".join(dict.fromkeys(parts))
    if origin is list:
        return f"list of {_type(typing.get_args(kind)[0])}"
    if origin is dict:
        return "object"
    if kind is msgspec.Raw:
        return "any"
    if isinstance(kind, type) and issubclass(kind, Struct):
        return "{" + ", ".join(field.encode_name for field in msgspec.structs.fields(kind)) + "}"
    return {str: "string", int: "integer", float: "number", bool: "boolean"}.get(kind, str(kind))


# -- metrics.md


def metrics_page() -> str:
    rows = [
        (f"`{metric.name}`", metric.kind, ", ".join(metric.labels), metric.mode, metric.help)
        for metric in metrics.CATALOGUE
    ]
    return f"""# Metrics

Made from `app/telemetry/metrics.py` by `make docs`. `GET /metrics` on the internal port answers for the whole pod.
No label names a room, a user or a client. How a gauge of several workers becomes one: `livesum` adds, `livemax` and
`livemin` take the worst.

{table(("name", "kind", "labels", "over workers", "what it says"), rows)}"""


# -- monitoring

MONITORING = DOCS.parent / "monitoring"
RULES = MONITORING / "rules" / "carillon.yaml"
RUNBOOKS = DOCS.parent / "runbooks"


def monitoring_page() -> str:
    return between((DOCS / "monitoring.md").read_text("utf-8"), "alerts", alerts())


def alerts() -> str:
    rules = [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]
    rows = [
        (
            f"[{rule['alert']}](../runbooks/{rule['alert']}.md)",
            rule["labels"]["severity"],
            rule.get("for", "at once"),
            _first_sentence(RUNBOOKS / f"{rule['alert']}.md"),
        )
        for rule in rules
    ]
    return table(("alert", "severity", "after", "meaning"), rows)


def _first_sentence(runbook: Path) -> str:
    meaning = runbook.read_text("utf-8").partition("## Meaning\n\n")[2]
    return " ".join(meaning.split()).partition(". ")[0] + "."


def prometheus_rule() -> str:
    """The rules as an object of prometheus-operator, which cannot refer to a file."""
    groups = RULES.read_text("utf-8").partition("groups:\n")[2]
    indented = "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))
    return f"""# Made from rules/carillon.yaml by `make docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: carillon
  labels:
    app.kubernetes.io/name: carillon
    app.kubernetes.io/part-of: carillon
spec:
  groups:
{indented}"""


# -- writing


def between(text: str, name: str, content: str) -> str:
    """Replaces what stands between the markers of this name. Raises ValueError where there are none."""
    pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no markers {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}{match[2]}", text)


def protocol_page() -> str:
    text = (DOCS / "protocol.md").read_text("utf-8")
    parts: dict[str, Callable[[], str]] = {"commands": commands, "events": events, "codes": code_tables}
    for name, make in parts.items():
        text = between(text, name, make())
    return text


#: By the path from docs/.
def tuning_page() -> str:
    text = (DOCS / "tuning.md").read_text("utf-8")
    for name, settings in catalogue.files().items():
        rows = [(f"`{setting.name} = {setting.value}`", *setting.words.values()) for setting in settings]
        content = table(("setting", "why", "without", "check", "in a pod"), rows)
        text = between(text, name.removesuffix(".conf"), content)
    return text


# -- edge.md


def edge_page() -> str:
    """People write it, but for the table."""
    made = subprocess.run(
        ["sh", str(DOCS.parent / "nginx" / "render.sh"), "--table"], capture_output=True, text=True, check=True
    )
    before, rest = (DOCS / "edge.md").read_text("utf-8").split("--table -->\n")
    return f"{before}--table -->\n{made.stdout}<!-- end -->{rest.split('<!-- end -->')[1]}"


# -- architecture-at-scale.md


def scale_page() -> str:
    text = (DOCS / "architecture-at-scale.md").read_text("utf-8")
    for name, make in TABLES.items():
        text = between(text, name, make())
    return text


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "protocol.md": protocol_page,
    "metrics.md": metrics_page,
    "tuning.md": tuning_page,
    "monitoring.md": monitoring_page,
    "edge.md": edge_page,
    "architecture-at-scale.md": scale_page,
    "../monitoring/prometheusrule.yaml": prometheus_rule,
}


def stale() -> list[str]:
    """Pages that do not say what the code says."""
    return [
        name for name, make in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text("utf-8") != make()
    ]


def main() -> int:
    if "--check" in sys.argv[1:]:
        for name in stale():
            print(f"docs/{name} is not up to date: make docs", file=sys.stderr)
        return 1 if stale() else 0
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
