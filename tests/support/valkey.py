"""Real Valkey and Redis servers for tests: one, three Sentinels with master and replica, a cluster of three primaries.

They listen on free ports of 127.0.0.1 and are gone afterwards, also when the test process is killed."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import redis

from local import servers
from local.ports import HOST, free_ports
from tests.support.waiting import wait_until

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_SLOTS = 16_384


def _die_with_parent() -> None:
    # SIGKILL: a server that a test has frozen would not hear anything else.
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One server process; may be killed and started again on the same port."""

    def __init__(self, folder: Path, port: int, command: list[str], *, password: str = "") -> None:
        self.port = port
        self._folder = folder
        self._command = command
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def start(self) -> Self:
        """Returns when the server answers."""
        file = self._folder / f"{self.port}.log"
        with file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent
            )
        wait_until(lambda: self.answers() or self._has_ended(), f"the server on port {self.port} answers")
        assert not self._has_ended(), f"the server has ended:\n{file.read_text('utf-8', 'replace')[-1000:]}"
        return self

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """Ends the process as a crash would; nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """The process lives and answers nothing, its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def cut_off(self, replica: "Server") -> None:
        """Freezes a replica of this server, and nothing that comes from now on reaches it, not even when it thaws:
        without the closing of its connection, what waits in the buffers of its socket would."""
        replica.freeze()
        self.do("CLIENT", "KILL", "TYPE", "replica")

    def do(self, *command: str | bytes | int) -> Any:
        """The plain reply to one command, by another client library than the one under test."""
        options: dict[str, Any] = {"password": self._password or None, "protocol": 2, "retry": None}
        connection: Any = redis.Connection(HOST, self.port, **options)  # type: ignore[no-untyped-call]
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def answers(self) -> bool:
        with suppress(redis.RedisError, OSError):
            return bool(self.do("PING"))
        return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def server(folder: Path, *options: str, password: str = "", program: str | None = None) -> Server:
    """A server, not started yet, without persistence unless the options say so."""
    (port,) = free_ports(1)
    command = [program or servers.valkey(), "--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", ""]
    # Files of several servers in one folder must not meet.
    command += ["--dbfilename", f"{port}.rdb", "--appenddirname", f"aof-{port}"]
    command += ["--repl-diskless-sync-delay", "0"]  # else a first replica waits five seconds for a second one
    if password:
        command += ["--requirepass", password]
    return Server(folder, port, [*command, *options], password=password)


class Trio:
    """A master with one replica, watched by three Sentinels."""

    NAME = "themaster"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.master = server(folder)
        self.replica = server(folder, "--replicaof", HOST, str(self.master.port), "--repl-diskless-load", "on-empty-db")
        self.sentinels = [self._sentinel(port) for port in free_ports(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.NAME}"

    def in_sync(self) -> bool:
        return b"master_link_status:up" in self.replica.do("INFO", "replication")

    def cut_off(self) -> None:
        """From now on the replica hears nothing of what the master confirms. It lives, so Sentinels may promote it.

        Freezing it would not do: what it was sent meanwhile would wait in its socket."""
        self.master.do("ACL", "SETUSER", "default", "-psync", "-sync")
        self.master.do("CLIENT", "KILL", "TYPE", "replica")

    def _sentinel(self, port: int) -> Server:
        file = self._folder / f"sentinel-{port}.conf"
        file.write_text(
            f"port {port}\nbind {HOST}\ndir {self._folder}\n"
            f"sentinel monitor {self.NAME} {HOST} {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {self.NAME} 500\n"
            f"sentinel failover-timeout {self.NAME} 3000\n"
        )
        return Server(self._folder, port, [servers.valkey(), str(file), "--sentinel"])

    def _is_complete(self) -> bool:
        return all(
            len(sentinel.do("SENTINEL", "SENTINELS", self.NAME)) == 2
            and len(sentinel.do("SENTINEL", "REPLICAS", self.NAME)) == 1
            for sentinel in self.sentinels
        )

    @contextmanager
    def running(self) -> Iterator[Self]:
        with ExitStack() as stack:
            stack.enter_context(self.master)
            stack.enter_context(self.replica)
            wait_until(self.in_sync, "the replica is in sync")
            for sentinel in self.sentinels:
                stack.enter_context(sentinel)
                # By default they look around every 10 seconds.
                sentinel.do("SENTINEL", "DEBUG", "info-period", 200, "publish-period", 200, "ping-period", 200)
            wait_until(self._is_complete, "the Sentinels know each other and the replica", 20)
            yield self


class ClusterOfThree:
    """Three primaries, without replicas."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buses = free_ports(3)
        self.nodes = [server(folder, "--cluster-enabled", "yes", *self._node_options(bus)) for bus in self._buses]

    @staticmethod
    def _node_options(bus: int) -> tuple[str, ...]:
        files = ("--cluster-config-file", f"nodes-{bus}.conf")
        return ("--cluster-port", str(bus), *files, "--cluster-node-timeout", "2000")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    @contextmanager
    def running(self) -> Iterator[Self]:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._form()
            yield self

    @contextmanager
    def replica_of(self, node: Server) -> Iterator[Server]:
        """A replica that takes over when its primary dies."""
        (bus,) = free_ports(1)
        with server(self._folder, "--cluster-enabled", "yes", *self._node_options(bus)) as replica:
            node.do("CLUSTER", "MEET", HOST, replica.port, bus)
            primary = node.do("CLUSTER", "MYID")
            wait_until(lambda: primary in replica.do("CLUSTER", "NODES"), "they have met")
            replica.do("CLUSTER", "REPLICATE", primary)
            wait_until(lambda: b"master_link_status:up" in replica.do("INFO", "replication"), "in sync", 20)
            # Only a replica that knows those who vote, and whom they know as one, can be elected.
            members = (*self.nodes, replica)
            wait_until(lambda: all(self._sees_replica(member) for member in members), "all know all", 20)
            yield replica

    def _sees_replica(self, node: Server) -> bool:
        ranges = node.do("CLUSTER", "SLOTS")  # each: first, last, primary, replicas
        primaries = {port for _, _, (_, port, *_), *_ in ranges}
        return len(primaries) == len(self.nodes) and any(len(served) == 4 for served in ranges)

    def move(self, slot: int, source: Server, target: Server) -> None:
        """Gives an empty slot to another primary."""
        owner = target.do("CLUSTER", "MYID")
        for node in (target, source, *self.nodes):
            node.do("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def _form(self) -> None:
        share = -(-_SLOTS // len(self.nodes))
        for number, node in enumerate(self.nodes):
            node.do("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.do("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, _SLOTS) - 1)
        first, *others = self.nodes
        for node, bus in zip(others, self._buses[1:], strict=True):
            first.do("CLUSTER", "MEET", HOST, node.port, bus)
        wait_until(self._is_formed, "the cluster is formed", 20)

    def _is_formed(self) -> bool:
        return all(
            b"cluster_state:ok" in node.do("CLUSTER", "INFO") and len(node.do("CLUSTER", "SLOTS")) == len(self.nodes)
            for node in self.nodes
        )
