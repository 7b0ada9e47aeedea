"""permessage-deflate through the real worker, as clients of other people speak it (H7)."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from app.wire.deflate import deflate
from app.wire.frames import CONTINUATION, RSV1, TEXT
from tests.support.client import Client, close_all, open_all
from tests.support.raw_websocket import RawWebSocket, client_frame
from tests.support.stack import Stack

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
LONG = "worth compressing, " * 200


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("compression"), pods=1, workers=1) as shared:
        yield shared


def offering(**parameters: Any) -> dict[str, Any]:
    """Options of a client that offers permessage-deflate with these parameters."""
    return {"compression": None, "extensions": [ClientPerMessageDeflateFactory(**parameters)]}


@pytest.mark.parametrize("through_nginx", [False, True])
async def test_members_with_and_without_hear_the_same(stack: Stack, through_nginx: bool) -> None:
    url = stack.ws_url if through_nginx else f"ws://127.0.0.1:{stack.pods[0].public_port}"
    room = f"chat:mixed-{through_nginx}"
    kinds: list[dict[str, Any]] = [
        {"compression": None},
        {"compression": "deflate"},
        offering(server_no_context_takeover=True, client_no_context_takeover=True),
        offering(server_max_window_bits=15, client_max_window_bits=9),
        offering(server_max_window_bits=9),  # declined
    ]
    members = [Client(url, token=stack.token(f"user-{n}"), **kind) for n, kind in enumerate(kinds)]
    await open_all(members)
    try:
        assert [member.compressed for member in members] == [False, True, True, True, False]
        for member in members:
            await member.subscribe(room)
        sent: list[Any] = [{"n": n, "text": LONG[n:]} for n in range(20)] + ["short", {"ä": "ö" * 2000}]
        for data in sent:
            await asyncio.to_thread(stack.publish, room, data)
        for member in members:
            assert await member.heard(room, len(sent)) == sent
        # What they say themselves comes compressed too.
        answers = await asyncio.gather(*(member.publish(f"{room}-{n}", LONG) for n, member in enumerate(members)))
        assert {answer["type"] for answer in answers} == {"ok"}
    finally:
        await close_all(members)


def test_publications_come_compressed_and_replies_do_not(stack: Stack) -> None:
    with RawWebSocket(stack.pods[0].public_port) as raw:
        raw.upgrade(OFFER, f"Authorization: Bearer {stack.token()}")
        assert "permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n" in raw.head + "\r\n"
        raw.send(client_frame(TEXT, deflate(b'{"type":"subscribe","id":1,"room":"chat:raw"}'), reserved=RSV1))
        while b'"room":"chat:raw"' not in raw.frame()[1]:
            assert not raw.compressed
        stack.publish("chat:raw", LONG)
        _, payload = raw.frame()
        assert raw.compressed
        assert LONG.encode() in zlib.decompressobj(-15).decompress(payload)
        stack.publish("chat:raw", "short")
        assert b"short" in raw.frame()[1]
        assert not raw.compressed


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (client_frame(TEXT, deflate(bytes(1_000_000)), reserved=RSV1), 1009),
        (client_frame(TEXT, deflate(b"\xff" * 100), reserved=RSV1), 1007),
        (client_frame(TEXT, b"no deflate data", reserved=RSV1), 1007),
        (client_frame(TEXT, b"a", final=False) + client_frame(CONTINUATION, b"b", reserved=RSV1), 1002),
    ],
    ids=["a bomb", "no UTF-8", "no deflate data", "RSV1 on a continuation"],
)
def test_what_cannot_be_inflated_ends_with_its_code(stack: Stack, stream: bytes, code: int) -> None:
    with RawWebSocket(stack.pods[0].public_port) as raw:
        raw.upgrade(OFFER).send(stream)
        assert raw.close_code() == code
        assert raw.gone()


def test_a_malformed_offer_is_no_agreement(stack: Stack) -> None:
    with RawWebSocket(stack.pods[0].public_port) as raw:
        raw.upgrade('Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits="')
        assert "sec-websocket-extensions" not in raw.head


def test_many_small_bombs_in_one_packet_wait_as_they_came(stack: Stack) -> None:
    """Behind a command that is under way they are queued (H2): what is read no further is not inflated either."""
    bomb = deflate(b'{"type":"ping","id":"%b"}' % (b"x" * 60_000))
    pid = stack.worker_pids()[0]
    with RawWebSocket(stack.pods[0].public_port) as raw:
        raw.upgrade(OFFER, f"Authorization: Bearer {stack.token()}")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew (man 5 proc)
        before = peak_memory(pid)
        raw.send(
            client_frame(TEXT, b'{"type":"subscribe","id":1,"room":"chat:bombs"}')
            + client_frame(TEXT, bomb, reserved=RSV1) * 2000
        )
        with suppress(ConnectionError):
            assert raw.close_code() == 3013
    assert peak_memory(pid) - before < 20_000_000


def peak_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
