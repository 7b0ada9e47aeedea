"""The two calls to the Kubernetes API that the program needs, as its service account, over HTTPS."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import httpx
import msgspec
from msgspec import Struct

from app.settings import SettingsError
from app.tls import trusting

#: Where Kubernetes mounts `token`, `ca.crt` and `namespace` of a pod's service account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

#: What the ReplicaSet controller reads: the pod with the lowest number goes first, none counts as 0.
ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

#: Seconds for one call, from the connection to the last byte.
CALL_TIMEOUT = 10.0


class ApiFailed(Exception):
    """The API did not do it: who, what, and what it said. `missing`: the right that a 403 asks for."""

    def __init__(self, text: str, *, missing: str = "") -> None:
        super().__init__(text)
        self.missing = missing


class _Metadata(Struct, rename="camel"):
    name: str
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class _Port(Struct, rename="camel"):
    container_port: int
    name: str = ""


class _Container(Struct):
    ports: list[_Port] | None = None


class _Spec(Struct):
    containers: list[_Container]


class _Status(Struct):
    phase: str = ""
    address: str = msgspec.field(name="podIP", default="")


class Pod(Struct):
    """What is read of a pod; all else is left out."""

    metadata: _Metadata
    spec: _Spec
    status: _Status

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def cost(self) -> int:
        """The annotation's number; 0 where there is none, or something else, as the controller takes it."""
        text = (self.metadata.annotations or {}).get(ANNOTATION, "")
        try:
            return int(text)
        except ValueError:
            return 0

    @property
    def may_be_chosen(self) -> bool:
        """Whether it runs and is not on its way out: of those alone the controller chooses by cost."""
        return self.status.phase == "Running" and self.metadata.deletion_timestamp is None

    def metrics_url(self) -> str | None:
        """Its metrics, on the container port that is called `internal`; None while it has no address."""
        address = self.status.address
        for container in self.spec.containers:
            for port in container.ports or ():
                if port.name == "internal" and address:
                    host = f"[{address}]" if ":" in address else address
                    return f"http://{host}:{port.container_port}/metrics"
        return None


class _Pods(Struct):
    items: list[Pod]


class _Refusal(Struct):
    """A `Status`, as the API answers errors."""

    message: str = ""


class KubeApi:
    """`async with KubeApi.in_pod(environ).session() as session: await session.pods(selector)`"""

    def __init__(self, url: str, account: Path, namespace: str) -> None:
        self._url = url
        self._account = account
        self._namespace = namespace

    @classmethod
    def in_pod(cls, environ: Mapping[str, str], account: Path = ACCOUNT) -> Self:
        """The API server that Kubernetes names to every pod. Raises SettingsError outside of one."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port:
            raise SettingsError("KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT: not set; this runs in a pod only")
        try:
            namespace = (account / "namespace").read_text("utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"{account}/namespace: {error.strerror}; the pod needs automountServiceAccountToken: true"
            ) from None
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", account, namespace)

    @asynccontextmanager
    async def session(self) -> AsyncIterator["Session"]:
        """Reads token and authority anew: Kubernetes replaces both while the pod runs. Raises ApiFailed."""
        try:
            token = (self._account / "token").read_text("utf-8").strip()
            authority = trusting(str(self._account / "ca.crt"))
        except OSError as error:  # ssl.SSLError is one
            raise ApiFailed(f"{self._account}: {error.strerror or error}") from None
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        async with httpx.AsyncClient(
            base_url=f"{self._url}/api/v1/namespaces/{self._namespace}/",
            headers=headers,
            timeout=CALL_TIMEOUT,
            verify=authority,
            trust_env=False,
        ) as client:
            yield Session(client, self._namespace)


class Session:
    """The calls; each raises ApiFailed, in a bounded time."""

    def __init__(self, client: httpx.AsyncClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def pods(self, selector: str) -> list[Pod]:
        """The pods with these labels, as the API server's cache has them (`resourceVersion=0`)."""
        answer = await self._call("list", "GET", "pods", params={"labelSelector": selector, "resourceVersion": "0"})
        try:
            return msgspec.json.decode(answer.content, type=_Pods).items
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiFailed(f"list pods: not a list of pods: {error}") from None

    async def set_cost(self, pod: str, cost: int) -> None:
        """Writes the annotation. A pod that is gone meanwhile, or changed in the same moment, is left for next time."""
        body = msgspec.json.encode({"metadata": {"annotations": {ANNOTATION: str(cost)}}})
        kind = {"Content-Type": "application/merge-patch+json"}
        await self._call("patch", "PATCH", f"pods/{pod}", content=body, headers=kind, also_fine=(404, 409))

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        also_fine: tuple[int, ...] = (),
    ) -> httpx.Response:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):  # httpx's own timeouts are for each read
                answer = await self._client.request(method, path, params=params, content=content, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            raise ApiFailed(f"{verb} pods: {error!r}") from None
        if answer.status_code == 200 or answer.status_code in also_fine:
            return answer
        missing = f"{verb} pods in namespace {self._namespace}" if answer.status_code == 403 else ""
        raise ApiFailed(f"{verb} pods: answered {answer.status_code}: {_said(answer)}", missing=missing)


def _said(answer: httpx.Response) -> str:
    """The reason that the API gives, or the beginning of whatever has answered."""
    try:
        said = msgspec.json.decode(answer.content, type=_Refusal).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ""
    return (said or answer.text)[:300]
