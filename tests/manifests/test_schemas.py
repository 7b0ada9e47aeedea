"""Every object is one that Kubernetes knows, in its three newest versions, or that a custom schema allows."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests.support import parts
from tests.support.manifests import Manifest, Manifests, identity

VERSIONS = ("1.35", "1.36", "1.37")

#: Groups whose types are not Kubernetes' own.
CUSTOM = ("keda.sh/", "monitoring.coreos.com/", "gateway.networking.k8s.io/")


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Any:
    """The library reads megabytes of schemas anew for each object."""
    patch = pytest.MonkeyPatch()
    patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    yield
    patch.undo()


#: Most objects stand in several sets: object -> what was said of it.
_known: dict[tuple[str, str], str] = {}


def unknown_to(version: str, manifest: Manifest) -> str:
    """What Kubernetes of this version would say against an object; empty: nothing."""
    key = (version, json.dumps(manifest, sort_keys=True))
    if key not in _known:
        _known[key] = ""
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            _known[key] = f"{identity(manifest)}: {error.message}"
    return _known[key]


def is_custom(manifest: Manifest) -> bool:
    return bool(manifest["apiVersion"].startswith(CUSTOM))


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(manifests: Manifests, version: str) -> None:
    own = [manifest for manifest in manifests.objects if not is_custom(manifest)]
    assert [said for manifest in own if (said := unknown_to(version, manifest))] == []


@pytest.mark.parametrize(
    ("target", "path", "value"),
    [
        ("Deployment/carillon-gateway", "spec/replica", 3),
        ("Deployment/carillon-gateway", "spec/template/spec/containers/0/ports/0/containerPort", "8000"),
        ("Service/carillon-gateway", "apiVersion", "v2"),
    ],
)
def test_what_kubernetes_does_not_know_is_seen(production: Manifests, target: str, path: str, value: object) -> None:
    broken = production.changed(target, path, value)
    assert [said for manifest in broken.objects if not is_custom(manifest) and (said := unknown_to("1.37", manifest))]


@cache
def _custom_schemas(folder: Path) -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) -> validator."""
    found = {}
    for file in folder.glob("*.yaml"):
        definition = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]
        for version in definition["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            key = (f"{definition['group']}/{version['name']}", definition["names"]["kind"])
            found[key] = jsonschema.Draft202012Validator(schema)
    return found


def _strict(schema: Any) -> Any:
    """The schema without what only the API server understands, and with no field but those that it names."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(part) for key, part in schema.items() if not key.startswith("x-kubernetes-")}
    if isinstance(schema.get("properties"), dict):
        # A property may be called like a keyword, or begin with x-kubernetes-.
        strict["properties"] = {name: _strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            strict["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    return strict


def against_custom_schemas(manifests: Manifests) -> list[str]:
    schemas = _custom_schemas(Path(parts.require("crds")))
    said = []
    for manifest in filter(is_custom, manifests.objects):
        schema = schemas.get((manifest["apiVersion"], manifest["kind"]))
        if schema is None:
            said.append(f"{identity(manifest)}: no schema of {manifest['apiVersion']}")
            continue
        # The API server's own part, of which a definition says only `type: object`.
        body = manifest | {"metadata": {}}
        said += [f"{identity(manifest)}: {error.json_path}: {error.message}" for error in schema.iter_errors(body)]
    return said


def test_custom_resources_are_what_their_definitions_allow(manifests: Manifests) -> None:
    if any(map(is_custom, manifests.objects)):
        assert against_custom_schemas(manifests) == []


@pytest.mark.parametrize(
    ("target", "path", "value"),
    [
        ("ServiceMonitor/carillon-gateway", "spec/endpoints/0/intervall", "15s"),
        ("ServiceMonitor/carillon-gateway", "spec/endpoints/0/interval", "15 s"),
        ("PodMonitor/carillon-edge", "spec/selector", ...),
        ("ServiceMonitor/carillon-gateway", "apiVersion", "monitoring.coreos.com/v7"),
    ],
)
def test_what_a_definition_does_not_allow_is_seen(production: Manifests, target: str, path: str, value: object) -> None:
    assert against_custom_schemas(production.changed(target, path, value))
