"""The Autobahn suite against an echo application on our WebSocket protocol: no case may fail."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.autobahn import fuzzing_client, run_cases
from tests.support.hosted import Pod, eventually
from tests.support.parts import require


@pytest.fixture(scope="module")
def wstest() -> Path:
    return fuzzing_client(require("autobahn"))


@pytest.fixture(scope="module")
def echo_url() -> Iterator[str]:
    """Group 9 sends messages of 16 MB."""
    with Pod(app="tests.support.echo_app:app", CARILLON_MAX_MESSAGE_BYTES=str(20 * 2**20)) as pod:
        eventually(lambda: socket.create_connection(("127.0.0.1", pod.port)).close() or True)
        yield f"ws://127.0.0.1:{pod.port}"


#: Strict would be: the echo of a message that came right before a violation (the application answers in a task of its
#: own, later), and invalid UTF-8 found in the midst of a message (it is checked when the message is complete).
EARLIER_ECHO = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
NOT_STRICT = EARLIER_ECHO | {"6.4.1", "6.4.2", "6.4.3", "6.4.4"}


def assert_all_pass(verdicts: dict[str, str], at_least: int) -> None:
    assert len(verdicts) >= at_least
    assert {case: verdict for case, verdict in verdicts.items() if verdict == "FAILED"} == {}
    assert {case for case, verdict in verdicts.items() if verdict == "NON-STRICT"} <= NOT_STRICT


@pytest.mark.timeout(420)
def test_framing_fragments_utf8_and_closing(wstest: Path, echo_url: str, tmp_path: Path) -> None:
    cases = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)]
    assert_all_pass(run_cases(wstest, echo_url, cases, tmp_path, timeout=120), at_least=247)


#: Offers that ask for a small window of ours: declined, as all members share the bytes of the whole one (H7).
DECLINED = {"13.3", "13.5"}


def assert_compressed(verdicts: dict[str, str], at_least: int) -> None:
    """Under `/publications` the echo comes as the gateway's own publications do."""
    assert len(verdicts) >= at_least
    wanted = {case: "UNIMPLEMENTED" if case.rpartition(".")[0] in DECLINED else "OK" for case in verdicts}
    assert verdicts == wanted


@pytest.mark.timeout(120)
def test_compression(wstest: Path, echo_url: str, tmp_path: Path) -> None:
    """Of 1,000 messages each: small ones, long ones, fragments, and every kind of offer."""
    cases = ["12.1.1", "12.1.11", "12.2.4", *(f"13.{offer}.1" for offer in range(2, 8))]
    assert_compressed(run_cases(wstest, f"{echo_url}/publications", cases, tmp_path, timeout=60), at_least=9)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_all_of_compression(wstest: Path, echo_url: str, tmp_path: Path) -> None:
    cases = ["12.*", "13.*"]
    assert_compressed(run_cases(wstest, f"{echo_url}/publications", cases, tmp_path, timeout=1200), at_least=216)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_limits_and_performance(wstest: Path, echo_url: str, tmp_path: Path) -> None:
    assert_all_pass(run_cases(wstest, echo_url, ["9.*"], tmp_path, timeout=600), at_least=54)
