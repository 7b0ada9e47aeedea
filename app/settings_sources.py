"""Where settings come from: the environment, the TOML file, files with secrets; and errors that name the place."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

PREFIX = "CARILLON_"

# Names under the prefix that are no settings of the gateway, and who reads them.
OTHER_NAMES = {
    "CONFIG": "Path of the TOML file with settings, in lower case and without the prefix. Read by the gateway.",
    "NGINX": "The `nginx` program that `make run` and the tests start; else the one on PATH, else the wheel's.",
    "VALKEY": "The `valkey-server` or `redis-server` program that `make run` and the tests start; else as above. None "
    "is started where `CARILLON_REDIS_URL` is set.",
    "PODS": "How many pods `make run` starts (2).",
    "REQUIRE": "Comma-separated parts, such as `chromium`, that the tests must not skip.",
}

# Settings with secrets: they have a form `..._FILE` too (N9).
SECRETS = ("token_hmac_secret", "api_keys")

# What Kubernetes injects for a Service called `carillon` or `carillon-...` (N8).
KUBERNETES_NAME = re.compile(
    r"([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://\S+")  # value of ..._PORT, a name that a setting may bear as well


class SettingsError(Exception):
    """The configuration cannot work; the text says which option and why, one line each."""


class Environment(EnvSettingsSource):
    """The variables `CARILLON_*`, but for what Kubernetes put there (N8)."""

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if not _injected(name.upper(), str(value))}


def _injected(name: str, value: str) -> bool:
    return bool(KUBERNETES_NAME.fullmatch(name) or (name.endswith("PORT") and KUBERNETES_PORT.fullmatch(value)))


class TomlFile(PydanticBaseSettingsSource):
    """The file that `CARILLON_CONFIG` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # __call__ gives the whole file at once

    def __call__(self) -> dict[str, Any]:
        return _read_file(os.environ)


def _read_file(environ: Mapping[str, str]) -> dict[str, Any]:
    name = environ.get(PREFIX + "CONFIG")
    if not name:
        return {}
    try:
        return tomllib.loads(Path(name).read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"CARILLON_CONFIG: {name}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"CARILLON_CONFIG: {name}: {error}") from None


def refuse_unknown_names(environ: Mapping[str, str], settings: Iterable[str], namespace: Iterable[str]) -> None:
    """Raises SettingsError for names under the prefix that are none of `settings`, nor an option of a `namespace`.

    The keys of the file are checked by pydantic."""
    known = {name.upper() for name in settings} - {"NAMESPACES"}
    known |= {f"{name.upper()}_FILE" for name in SECRETS} | OTHER_NAMES.keys()
    options = {name.upper() for name in namespace}
    unknown = []
    for variable, value in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or name in known or _injected(name, value):
            continue
        root, *path = name.split("__")
        if root != "NAMESPACES" or len(path) != 2 or path[1] not in options:
            unknown.append(f"{variable}: no such setting")
    if unknown:
        raise SettingsError("\n".join(sorted(unknown)))


def secret_files(environ: Mapping[str, str]) -> dict[str, Any]:
    """Secrets may come as files, one or more per file, by line or comma (N9)."""
    found: dict[str, Any] = {}
    for name in SECRETS:
        variable = PREFIX + name.upper()
        path = environ.get(f"{variable}_FILE")
        if not path:
            continue
        if environ.get(variable):
            raise SettingsError(f"{variable}_FILE: {variable} is set too; only one of them may be")
        try:
            found[name] = ",".join(Path(path).read_text("utf-8").splitlines())
        except OSError as error:
            raise SettingsError(f"{variable}_FILE: {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{variable}_FILE: {path}: not a text in UTF-8") from None
        if not split(found[name]):
            raise SettingsError(f"{variable}_FILE: {path}: holds no secret")
    return found


def split(value: object) -> object:
    """Lists may be given with commas in the environment (A5)."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def explain(error: ValidationError, environ: Mapping[str, str]) -> str:
    """A line for each thing that is wrong, without the values: they may be secrets."""
    return "\n".join(_line(details, environ) for details in error.errors(include_input=False, include_url=False))


def _line(error: ErrorDetails, environ: Mapping[str, str]) -> str:
    """What is wrong, behind the name that the operator gave it: the variable, or the key in the file."""
    message = "no such setting" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    path = [part for part in error["loc"] if isinstance(part, str)]  # without places in lists
    if not path:
        return message
    variable = PREFIX + "__".join(path).upper()
    if variable not in environ and _has(_read_file(environ), path):
        return f"{environ[PREFIX + 'CONFIG']}: {'.'.join(path)}: {message}"
    return f"{variable}: {message}"


def _has(tree: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True
