"""Each pod's connections are written to it as its deletion cost, and whatever the API does, the program goes on."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.deletion_cost.kube_api import ApiFailed, KubeApi
from app.deletion_cost.writer import Writer, is_outdated
from tests.support.certificates import strict_by_default
from tests.support.kube_api import LIST, NAMESPACE, PATCH, Answer, FakePod, KubeApiServer, kube_api
from tests.support.waiting import until, wait_until

SELECTOR = "app.kubernetes.io/name=carillon,app.kubernetes.io/component=gateway"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubeApiServer]:
    with kube_api(tmp_path) as running:
        yield running


@pytest.fixture
def pods(server: KubeApiServer) -> tuple[FakePod, FakePod]:
    first, second = server.pods
    first.has(500)
    second.has(30)
    return first, second


def writer(server: KubeApiServer, *, interval: float = 0.02, rate: float = 1000) -> Writer:
    return Writer(KubeApi.in_pod(server.environ, server.account), SELECTOR, interval=interval, rate=rate)


@asynccontextmanager
async def running(server: KubeApiServer) -> AsyncIterator[None]:
    task = asyncio.create_task(writer(server).run())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class TestALook:
    async def test_writes_the_connections_the_emptiest_pod_first(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        await writer(server).look()
        assert server.costs() == {"pod-1": "500", "pod-2": "30"}
        assert server.patched() == ["pod-2", "pod-1"]

    async def test_asks_for_the_labels_and_changes_the_annotation_only(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        await writer(server).look()
        listed, patched, _ = server.asked
        assert (listed.path, listed.query["labelSelector"]) == (f"/api/v1/namespaces/{NAMESPACE}/pods", SELECTOR)
        assert patched.kind == "application/merge-patch+json"
        assert patched.body == {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "30"}}}

    async def test_leaves_alone_what_has_hardly_changed(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        await writer(server).look()
        pods[0].has(549)
        pods[1].has(21)
        server.asked.clear()
        await writer(server).look()
        assert server.patched() == []
        pods[0].has(551)
        await writer(server).look()
        assert server.patched() == ["pod-1"]

    @pytest.mark.parametrize(
        ("cost", "now", "outdated"),
        [(0, 0, False), (0, 10, False), (0, 11, True), (9, 0, True), (1000, 1100, False), (1000, 1101, True)],
    )
    def test_what_has_hardly_changed_is_a_tenth_or_ten_but_empty_is_exact(
        self, cost: int, now: int, outdated: bool
    ) -> None:
        assert is_outdated(cost, now) is outdated

    async def test_writes_over_a_cost_that_is_no_number(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        pods[0].annotations["controller.kubernetes.io/pod-deletion-cost"] = "high"
        await writer(server).look()
        assert server.costs()["pod-1"] == "500"

    async def test_leaves_pods_alone_that_end_or_do_not_run(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        pods[0].terminating = True
        pods[1].phase = "Pending"
        await writer(server).look()
        assert server.patched() == []

    async def test_is_paced(self, server: KubeApiServer, pods: tuple[FakePod, FakePod]) -> None:
        began = asyncio.get_running_loop().time()
        await writer(server, rate=10).look()
        assert asyncio.get_running_loop().time() - began >= 0.2

    async def test_a_pod_that_cannot_be_asked_keeps_its_cost_and_the_others_get_theirs(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        await writer(server).look()
        for broken in (Answer(500), Answer(200, b"<html>"), Answer(200, b"\xff\xfe"), Answer(200, b"other 1\n")):
            pods[0].metrics = broken
            pods[1].has(0)
            with capture_logs() as lines:
                await writer(server).look()
            assert server.costs() == {"pod-1": "500", "pod-2": "0"}
            (line,) = lines
            assert (line["log_level"], line["pods"], line["one"]) == ("warning", 1, "pod-1")

    async def test_a_pod_without_an_address_is_asked_next_time(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        pods[0].address = ""
        await writer(server).look()
        assert server.patched() == ["pod-2"]

    async def test_a_selector_that_nothing_has_is_told(self, server: KubeApiServer) -> None:
        server.pods.clear()
        with capture_logs() as lines:
            await writer(server).look()
        assert [line["selector"] for line in lines] == [SELECTOR]

    async def test_a_pod_that_is_gone_or_changed_meanwhile_is_left_for_next_time(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        for status in (404, 409):
            server.instead[PATCH] = Answer.refusal(status, "it was not as you thought")
            server.asked.clear()
            await writer(server).look()
            assert server.patched() == ["pod-2", "pod-1"], "the other one comes all the same"


class TestWhenTheApiFails:
    @pytest.mark.parametrize(
        ("method", "verb"), [(LIST, "list"), (PATCH, "patch")], ids=["may not list", "may not patch"]
    )
    async def test_a_missing_right_is_named(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod], method: str, verb: str
    ) -> None:
        server.instead[method] = Answer.refusal(403, 'pods is forbidden: User "x" cannot')
        with pytest.raises(ApiFailed, match="403: pods is forbidden") as failed:
            await writer(server).look()
        assert failed.value.missing == f"{verb} pods in namespace {NAMESPACE}"

    @pytest.mark.parametrize(
        "answer",
        [
            Answer.refusal(401, "Unauthorized"),
            Answer.refusal(410, "too old resource version"),
            Answer.refusal(429, "too many requests"),
            Answer(503, b"apiserver not ready"),
            Answer(200, b""),
            Answer(200, b"null"),
            Answer(200, b'{"items": null}'),
            Answer(200, b'{"items": [{"metadata": {}}]}'),
            Answer(200, b"\xff\xfe"),
            Answer(302, b"elsewhere"),
        ],
        ids=lambda answer: f"{answer.status} {answer.body[:30]!r}",
    )
    async def test_it_is_told_in_one_line_and_it_goes_on(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod], answer: Answer
    ) -> None:
        server.instead[LIST] = answer
        with capture_logs() as lines:
            async with running(server):
                await until(lambda: any("failures" in line for line in lines), "a line")
                del server.instead[LIST]
                await until(lambda: server.costs() == {"pod-1": "500", "pod-2": "30"}, "it goes on")
                await until(lambda: "answers again" in lines[-1]["event"], "a line")
        assert "\n" not in lines[0]["error"]

    async def test_a_replaced_token_is_read_anew(self, server: KubeApiServer, pods: tuple[FakePod, FakePod]) -> None:
        server.token = "the-next-one"
        with capture_logs() as lines:
            async with running(server):
                await until(lambda: any("401" in line.get("error", "") for line in lines), "it is refused")
                (server.account / "token").write_text("the-next-one\n")
                await until(lambda: server.costs()["pod-1"] == "500", "it goes on")
        assert "the-next-one" not in str(lines)

    async def test_an_account_that_is_not_mounted_for_a_while(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        (server.account / "token").rename(server.account / "elsewhere")
        with capture_logs() as lines:
            async with running(server):
                await until(lambda: lines, "a line")
                (server.account / "elsewhere").rename(server.account / "token")
                await until(lambda: server.costs()["pod-1"] == "500", "it goes on")

    async def test_certificates_without_key_identifiers_are_trusted(
        self, server: KubeApiServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server here has such ones, and so has EKS; from 3.13 on Python refuses them by default."""
        strict_by_default(monkeypatch)
        await writer(server).look()
        assert len(server.asked) == 1

    async def test_a_server_with_another_authority_is_not_trusted(self, server: KubeApiServer, tmp_path: Path) -> None:
        with kube_api(tmp_path / "other", pods=0) as other:
            (server.account / "ca.crt").write_bytes((other.account / "ca.crt").read_bytes())
            with pytest.raises(ApiFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await writer(server).look()
        assert server.asked == []


class TestTheProgram:
    def start(self, server: KubeApiServer, **environ: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app", "deletion-cost", "--selector", SELECTOR, "--interval", "1"]
        return subprocess.Popen(
            [*command, "--account", str(server.account)],
            env={**os.environ, **server.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_writes_until_it_gets_a_signal_which_ends_it_at_once(
        self, server: KubeApiServer, pods: tuple[FakePod, FakePod]
    ) -> None:
        program = self.start(server, HTTPS_PROXY="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
        try:
            wait_until(lambda: server.costs() == {"pod-1": "500", "pod-2": "30"}, "the costs are written", 20)
            program.send_signal(signal.SIGTERM)
            out, err = program.communicate(timeout=5)
        finally:
            program.kill()
            program.wait()
        assert (program.returncode, err) == (0, "")
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["started"]

    def test_outside_of_a_pod_it_says_so(self, server: KubeApiServer) -> None:
        program = self.start(server, KUBERNETES_SERVICE_HOST="")
        out, err = program.communicate(timeout=20)
        assert (program.returncode, out) == (2, "")
        assert err == ("carillon: KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT: not set; this runs in a pod only\n")

    def test_without_an_account_it_says_so(self, server: KubeApiServer) -> None:
        (server.account / "namespace").unlink()
        program = self.start(server)
        out, err = program.communicate(timeout=20)
        assert (program.returncode, out, err.count("\n")) == (2, "", 1)
        assert "automountServiceAccountToken: true" in err
