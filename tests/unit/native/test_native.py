"""The send loop in C: how it is built, what is said where it cannot be, and what it does to real sockets."""

import os
import shutil
import signal
import socket
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app import native
from app.cli import main
from tests.support.parts import require

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def built() -> Path:
    """The library as it is used; stands before `elsewhere`."""
    return Path(require("send-loop"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Builds into a folder of the test's own; the source may be changed there."""
    source = shutil.copy(native._SOURCE, tmp_path)
    monkeypatch.setattr(native, "_SOURCE", Path(source))
    return Path(source)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `cc` that is the only one on PATH, and says no."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "cc"
    program.write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


class TestBuild:
    def test_it_is_built_once(self, built: Path, elsewhere: Path) -> None:
        library = native.build()
        assert library == native.library() == elsewhere.parent / built.name
        first = library.stat()
        assert native.build() == library
        assert library.stat() == first
        assert {file.name for file in elsewhere.parent.iterdir()} == {elsewhere.name, library.name}
        assert native.load() is not None

    def test_a_changed_source_is_built_anew(self, built: Path, elsewhere: Path) -> None:
        first = native.build()
        elsewhere.write_text(elsewhere.read_text() + "/* changed */\n")
        assert native.load() is None
        second = native.build()
        assert first is not None
        assert first != second == native.library()
        assert native.load() is not None

    def test_no_compiler_is_no_error(self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
        monkeypatch.setenv("PATH", "")
        assert native.build() is None
        assert native.load() is None
        assert main(["build"]) == 0
        printed = capsys.readouterr()
        assert printed.out == "carillon: no C compiler (or no Linux): the send loop runs in Python\n"
        assert printed.err == ""

    def test_a_compiler_that_fails_is_quoted(self, elsewhere: Path, compiler: Path, capsys: Captured) -> None:
        with pytest.raises(native.BuildFailed, match=r"^no space left$"):
            native.build()
        assert main(["build"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == (
            "carillon: the send loop was not compiled, and runs in Python:\ncarillon: no space left\n"
        )
        assert not native.library().exists()

    @pytest.mark.parametrize("program", ["#!/nowhere/to/be/found\n", "#!/bin/sh\nexit 0\n"])
    def test_a_compiler_that_is_none_is_one_clear_error(
        self, elsewhere: Path, compiler: Path, capsys: Captured, program: str
    ) -> None:
        compiler.write_text(program)
        assert main(["build"]) == 1
        assert "No such file or directory" in capsys.readouterr().err
        assert not native.library().exists()

    def test_a_source_with_an_error_leaves_nothing_behind(self, built: Path, elsewhere: Path) -> None:
        elsewhere.write_text("int carillon_send(")
        with pytest.raises(native.BuildFailed, match="error"):
            native.build()
        assert list(elsewhere.parent.iterdir()) == [elsewhere]


class TestLoad:
    @pytest.mark.parametrize("kept", [0, 3, 4, 0.1, 0.5, 0.9, -1])
    def test_a_cut_library_is_as_none_and_built_anew(self, built: Path, elsewhere: Path, kept: float) -> None:
        """The dynamic loader would end the process with SIGBUS."""
        whole = built.read_bytes()
        native.library().write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
        assert native.load() is None
        assert native.build() == native.library()
        assert native.load() is not None

    def test_a_library_of_another_machine_is_as_none(self, elsewhere: Path) -> None:
        native.library().write_bytes(b"\x7fELF of another machine")
        native._seal(native.library())
        assert native.load() is None

    def test_a_library_without_the_function_is_as_none(self, built: Path, elsewhere: Path) -> None:
        elsewhere.write_text("int something_else(void) { return 0; }\n")
        assert native.build() == native.library() != built
        assert native.load() is None


class Line:
    """A socket that the loop sends to, and the other end."""

    def __init__(self, opened: ExitStack) -> None:
        self.ours, self.theirs = (opened.enter_context(end) for end in socket.socketpair())
        self.theirs.setblocking(False)

    def fill(self) -> int:
        """Until it takes nothing more; how many bytes that were."""
        filled = 0
        try:
            while True:
                filled += self.ours.send(b"f" * 4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return filled

    def received(self) -> bytes:
        data = b""
        try:
            while more := self.theirs.recv(1_000_000):
                data += more
        except BlockingIOError:
            pass
        return data


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    with ExitStack() as opened:
        yield [Line(opened) for _ in range(5)]


def send(descriptors: list[int], data: bytes) -> list[tuple[int, int]]:
    """Runs the loop over these descriptors: (index, bytes sent) of each that did not take all."""
    loop = native.load()
    assert loop is not None
    sockets = array("i", descriptors)
    unsent = array("i", [-7] * (2 * len(sockets) + 2))
    told = loop(sockets.buffer_info()[0], len(sockets), data, len(data), unsent.buffer_info()[0])
    assert list(unsent[2 * told :]) == [-7] * (len(unsent) - 2 * told), "nothing is written behind what is told"
    return list(zip(unsent[: 2 * told : 2], unsent[1 : 2 * told : 2], strict=True))


DATA = b"a frame \0 with a zero in it" * 10


@pytest.mark.usefixtures("built")
class TestSend:
    def test_all_get_all(self, lines: list[Line]) -> None:
        assert send([line.ours.fileno() for line in lines], DATA) == []
        assert [line.received() for line in lines] == [DATA] * 5

    def test_nobody(self) -> None:
        assert send([], DATA) == []

    def test_a_full_socket_takes_nothing_and_the_others_all(self, lines: list[Line]) -> None:
        filled = lines[2].fill()
        assert send([line.ours.fileno() for line in lines], DATA) == [(2, 0)]
        assert lines[2].received() == b"f" * filled
        assert [line.received() for line in (*lines[:2], *lines[3:])] == [DATA] * 4

    def test_a_socket_that_takes_a_part_is_told_with_it(self, lines: list[Line]) -> None:
        big = os.urandom(1_000_000)
        for line in lines[1::2]:
            line.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for line in lines[::2]:
            line.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        told = send([line.ours.fileno() for line in lines], big)
        assert [index for index, _ in told] == [0, 1, 2, 3, 4]
        for index, sent in told:
            assert 0 < sent < len(big)
            assert lines[index].received() == big[:sent]

    def test_who_is_gone_is_told_with_nothing_and_raises_no_signal(self, lines: list[Line]) -> None:
        lines[1].theirs.close()
        lines[3].ours.shutdown(socket.SHUT_WR)
        descriptors = [line.ours.fileno() for line in lines]
        before = signal.signal(signal.SIGPIPE, lambda *_: pytest.fail("SIGPIPE"))
        try:
            assert send(descriptors, DATA) == [(1, 0), (3, 0)]
        finally:
            signal.signal(signal.SIGPIPE, before)
        assert [lines[index].received() for index in (0, 2, 4)] == [DATA] * 3

    def test_what_is_no_socket_is_told_with_nothing(self, lines: list[Line], tmp_path: Path) -> None:
        with (tmp_path / "file").open("wb") as file:
            descriptors = [-1, lines[0].ours.fileno(), 1_000_000, file.fileno()]
            assert send(descriptors, DATA) == [(0, 0), (2, 0), (3, 0)]
        assert lines[0].received() == DATA
        assert (tmp_path / "file").read_bytes() == b""
