"""What a pod of the manifests would read: its environment and its mounted files, as the kubelet makes them."""

import re
from pathlib import Path
from typing import Any

from tests.support.manifests import Manifest, Manifests, Pod

#: Values that a user may have put into the Secret, by its keys.
SECRET = {
    "token-hmac-secret": "a-secret-of-tests-with-more-than-32-bytes",
    "api-keys": "an-api-key-of-tests",
    "redis-url": "redis://:password@redis.example.com:6379/0",
}
NAMESPACE = "carillon"


def environment(manifests: Manifests, container: Manifest) -> dict[str, str]:
    """The variables of a container. Like Kubernetes, `env` beats `envFrom`, and sees what stands before it."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= manifests.one("ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", []):
        found[variable["name"]] = _value(manifests, variable, found)
    return found


def _value(manifests: Manifests, variable: Manifest, before: dict[str, str]) -> str:
    source: dict[str, Any] = variable.get("valueFrom", {})
    if "secretKeyRef" in source:
        return SECRET[source["secretKeyRef"]["key"]]
    if "configMapKeyRef" in source:
        text: str = manifests.one("ConfigMap", source["configMapKeyRef"]["name"])["data"][
            source["configMapKeyRef"]["key"]
        ]
        return text
    if "fieldRef" in source:
        return {"metadata.namespace": NAMESPACE, "metadata.name": "pod-1"}[source["fieldRef"]["fieldPath"]]
    return re.sub(r"\$\((\w+)\)", lambda name: before.get(name[1], name[0]), variable["value"])


def mount(manifests: Manifests, pod: Pod, container: Manifest, root: Path) -> None:
    """Writes the files of ConfigMaps and Secrets where the container would see them, below `root`."""
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
    for place in container.get("volumeMounts", []):
        volume = volumes[place["name"]]
        for source in volume["projected"]["sources"] if "projected" in volume else [volume]:
            for path, text in _files(manifests, source).items():
                file = root / place["mountPath"].lstrip("/") / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)


def _files(manifests: Manifests, source: Manifest) -> dict[str, str]:
    if "configMap" in source:
        reference = source["configMap"]
        found = manifests.get("ConfigMap", reference["name"])
        data: dict[str, str] = found["data"] if found else {}
    elif "secret" in source:
        reference, data = source["secret"], SECRET
    else:
        return {}
    if "items" not in reference:
        return data
    return {item["path"]: data[item["key"]] for item in reference["items"] if item["key"] in data}
