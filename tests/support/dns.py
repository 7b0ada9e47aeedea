"""A DNS server of the tests on UDP: answers for the names that it is given, and keeps what it was asked."""

import socket
import struct
import threading
from typing import Self

from local.ports import HOST

A, AAAA = 1, 28


class Dns:
    """`with Dns() as dns: dns.names["gateway.test"] = ["127.0.0.2"]`; other names do not exist."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        #: (name, type) of each question.
        self.asked: list[tuple[str, int]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self.address = f"{HOST}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), sender)

    def _answer(self, question: bytes) -> bytes:
        name, end = _name(question)
        (kind,) = struct.unpack_from("!H", question, end)
        self.asked.append((name, kind))
        addresses = self.names.get(name)
        found = addresses or [] if kind == A else []
        flags = 0x8180 if addresses is not None else 0x8183  # an answer, or: no such name
        head = question[:2] + struct.pack("!5H", flags, 1, len(found), 0, 0)
        records = (
            b"\xc0\x0c" + struct.pack("!2HIH", A, 1, 600, 4) + socket.inet_aton(address)  # the name, for ten minutes
            for address in found
        )
        return head + question[12 : end + 4] + b"".join(records)


def _name(question: bytes) -> tuple[str, int]:
    """The name asked for, and where it ends."""
    labels, at = [], 12
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1
