"""Runs a pod's specification in Docker as a kubelet runs it: the nearest to a cluster that one machine without one has.

What the specification says of the container is what Docker is told. A field that is unknown here fails, so that nothing
goes by unnoticed; what only a cluster can do (spreading, accounts, seccomp profiles by name) is in `_FOR_A_CLUSTER`."""

import base64
import http.client
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.engine import Engine
from tests.support.manifests import Manifest, Manifests, Pod

NAMESPACE = "carillon"

_FOR_A_CLUSTER = {
    *("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "topologySpreadConstraints"),
    *("affinity", "nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets", "restartPolicy"),
    "initContainers",  # sidecars: the exporter, whose image is not ours
}
_POD = {"terminationGracePeriodSeconds", "securityContext", "containers", "volumes"}
_CONTAINER = {
    *("name", "image", "imagePullPolicy", "securityContext", "ports", "envFrom", "env", "command", "args", "resources"),
    *("volumeMounts", "lifecycle", "startupProbe", "readinessProbe", "livenessProbe"),
}
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass
class Probe:
    """An HTTP probe and how often it may fail."""

    path: str
    port: int
    period: float
    timeout: float
    failures: int

    def passes(self, host: str) -> bool:
        connection = http.client.HTTPConnection(host, self.port, timeout=self.timeout)
        try:
            connection.request("GET", self.path)
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass
class End:
    """How a pod has ended: the exit code, the seconds from the beginning of preStop, and what it was granted."""

    code: int
    took: float
    grace: float


class RunningPod:
    """One container of a pod. `aliases`: the names by which DNS finds it on the network."""

    def __init__(self, engine: Engine, manifests: Manifests, pod: Pod, image: str, folder: Path, name: str) -> None:
        self._engine = engine
        self._manifests = manifests
        self._spec = pod.spec
        _all_known(self._spec, _POD | _FOR_A_CLUSTER)
        assert all(other["restartPolicy"] == "Always" for other in self._spec.get("initContainers", []))
        (self.container,) = self._spec["containers"]
        _all_known(self.container, _CONTAINER)
        self._ports = pod.ports()
        self._image = image
        self._folder = folder / name
        self.name = name
        self.id = ""
        self.address = ""

    # Life

    def start(self, network: str, aliases: tuple[str, ...] = ()) -> None:
        named = [f"--network-alias={alias}" for alias in aliases]
        command = self.container.get("args", [])
        if entrypoint := self.container.get("command"):
            named.append(f"--entrypoint={entrypoint[0]}")
            command = [*entrypoint[1:], *command]
        options = [f"--network={network}", f"--name={self.name}", f"--hostname={self.name}", *named, *self._options()]
        self.id = self._engine.run("run", "--detach", *options, self._image, *command)
        networks = self._engine.inspect(self.id)["NetworkSettings"]["Networks"]
        self.address = networks[network]["IPAddress"]

    def started(self) -> None:
        """As the startup probe has it. Raises AssertionError with the log where it fails too often."""
        self._until_passes("startupProbe")
        self._until_passes("readinessProbe", at_least=30)
        assert self.probe("livenessProbe").passes(self.address)

    def _until_passes(self, kind: str, at_least: int = 0) -> None:
        probe = self.probe(kind)
        for _ in range(max(probe.failures, at_least)):
            if probe.passes(self.address):
                return
            time.sleep(probe.period)
        raise AssertionError(f"{self.name}: {kind} has failed too often:\n{self.log()}")

    def terminate(self) -> End:
        """preStop, then the image's stop signal, then SIGKILL when the grace is over: it counts from preStop on."""
        grace = float(self._spec["terminationGracePeriodSeconds"])
        began = time.monotonic()
        hook = self.container.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            time.sleep(hook["sleep"]["seconds"])
        elif hook:
            self._engine.try_run("exec", self.id, *hook["exec"]["command"], timeout=grace)
        left = max(2, round(grace - (time.monotonic() - began)))  # a kubelet grants 2 seconds in any case
        self._engine.run("stop", f"--time={left}", self.id, timeout=left + 60)
        return End(self.state()["ExitCode"], time.monotonic() - began, grace)

    def remove(self) -> None:
        if self.id:
            self._engine.run("rm", "--force", "--volumes", self.id)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self._engine.inspect(self.id)["State"]
        return found

    def log(self) -> str:
        done = self._engine.try_run("logs", "--tail=60", self.id)
        return done.stdout + done.stderr

    # What the specification says

    def probe(self, kind: str) -> Probe:
        found = self.container[kind]
        _all_known(found, {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"})
        get = found["httpGet"]
        port = self._ports[get["port"]] if isinstance(get["port"], str) else get["port"]
        return Probe(get["path"], port, found["periodSeconds"], found["timeoutSeconds"], found["failureThreshold"])

    def port(self, name: str) -> int:
        return self._ports[name]

    def _options(self) -> Iterator[str]:
        yield from self._rights()
        for name, value in self.environment().items():
            yield f"--env={name}={value}"
        for mount in self.container["volumeMounts"]:
            (volume,) = (volume for volume in self._spec["volumes"] if volume["name"] == mount["name"])
            yield self._mount(volume, mount["mountPath"])
        yield f"--memory={_bytes(self.container['resources']['limits']['memory'])}"
        # A Docker healthcheck means nothing to a kubelet.
        yield "--no-healthcheck"

    def _rights(self) -> Iterator[str]:
        pod, own = self._spec["securityContext"], self.container["securityContext"]
        profile = {"runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "seccompProfile"}
        _all_known(pod, profile | {"sysctls"})
        _all_known(own, {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities", "runAsNonRoot"})
        yield f"--user={pod['runAsUser']}:{pod['runAsGroup']}"
        yield f"--group-add={pod['fsGroup']}"
        if not own["allowPrivilegeEscalation"]:
            yield "--security-opt=no-new-privileges"
        if own["readOnlyRootFilesystem"]:
            yield "--read-only"
        _all_known(own["capabilities"], {"drop"})
        yield from (f"--cap-drop={capability}" for capability in own["capabilities"]["drop"])
        yield from (f"--sysctl={one['name']}={one['value']}" for one in pod.get("sysctls", []))

    def environment(self) -> dict[str, str]:
        """With $(NAME) of what stands before it filled in."""
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            _all_known(source, {"configMapRef"})
            found |= self._manifests.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in self.container.get("env", []):
            text = variable["value"] if "value" in variable else self._value_from(variable["valueFrom"])
            found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], text)
        return found

    def _value_from(self, source: Mapping[str, Any]) -> str:
        if "fieldRef" in source:
            return {"metadata.namespace": NAMESPACE, "metadata.name": self.name}[source["fieldRef"]["fieldPath"]]
        reference = source["secretKeyRef"]
        return self._data("Secret", reference["name"])[reference["key"]]

    def _mount(self, volume: Mapping[str, Any], path: str) -> str:
        if "emptyDir" in volume:
            limit = volume["emptyDir"].get("sizeLimit")
            return f"--tmpfs={path}:mode=1777" + (f",size={_bytes(limit)}" if limit else "")
        kind, source = next((kind, source) for kind, source in volume.items() if kind != "name")
        sources = source["sources"] if kind == "projected" else [{kind: source}]
        folder = self._folder / volume["name"]
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        group = self._spec["securityContext"]["fsGroup"]
        for one in sources:
            self._write(folder, one, int(source.get("defaultMode", 0o644)), group)
        return f"--volume={folder}:{path}:ro"

    def _write(self, folder: Path, source: Mapping[str, Any], mode: int, group: int) -> None:
        """Root's files of the pod's group, as a kubelet writes them."""
        ((kind, said),) = source.items()
        data = self._data("ConfigMap" if kind == "configMap" else "Secret", said.get("name") or said["secretName"])
        items = said.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            file = folder / item["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            for above in file.parents[: len(Path(item["path"]).parts) - 1]:
                above.chmod(0o755)
            file.write_text(data[item["key"]])
            os.chown(file, 0, group)
            file.chmod(mode)

    def _data(self, kind: str, name: str) -> dict[str, str]:
        found = self._manifests.one(kind, name)
        data: dict[str, str] = found.get("data", {})
        if kind == "ConfigMap":
            return data
        return found.get("stringData", {}) | {key: base64.b64decode(value).decode() for key, value in data.items()}


def _all_known(found: Manifest, known: set[str]) -> None:
    assert found.keys() <= known, f"nobody here knows what {found.keys() - known} would do"


def _bytes(quantity: str) -> int:
    number, unit = quantity[:-2], quantity[-2:]
    return int(number) * _UNITS[unit]
