"""The servers that Carillon is measured beside, and how a plain WebSocket client speaks with each.

Every peer is a module here, written for this benchmark, with an environment of its own (`sh local/venv.sh bench`).
`python -m bench.peers.NAME PORT [REDIS_URL]` listens on 127.0.0.1 and does its work in the process that was started.
This file is imported by the runner as well, which has none of the peers' packages: standard library only."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The interpreter that has the peers' packages.
PYTHON = ROOT / ".cache" / "bench" / "venv" / "bin" / "python"

#: What to send after the upgrade (None: nothing), and a part of the text that is waited for then.
Step = tuple[str | None, str]


@dataclass(frozen=True)
class Peer:
    """One server to compare with. All messages are text; nobody offers permessage-deflate."""

    #: The module in this package, by which the peer is also chosen.
    name: str
    #: What tables call it.
    title: str
    #: Path and query of the upgrade; `{token}` stands for a JWT (`credentials.py`).
    path: str = "/ws"
    needs_redis: bool = False
    #: A program that has to be on PATH; empty: the environment has all that the peer needs.
    binary: str = ""
    #: After the last step a member receives all that is published from then on, and a publisher may publish.
    member_setup: tuple[Step, ...] = ()
    publisher_setup: tuple[Step, ...] = ()
    #: The text to send; `{payload}` stands for printable ASCII without quotes and backslashes, which comes through
    #: unchanged. To be put in with `str.replace`: the braces around it are JSON's.
    publish_template: str = "{payload}"
    #: Whether a publication also goes to who published it: one delivery more than there are members.
    publisher_hears: bool = True
    #: A keepalive of the peer's own protocol: whoever receives a text equal to the first answers with the second.
    ping: tuple[str, str] | None = None

    def command(self, port: int, redis_url: str = "") -> tuple[str, ...]:
        """What starts the peer, to be run in the folder `ROOT`."""
        return (str(PYTHON), "-m", f"bench.peers.{self.name}", str(port), *([redis_url] if self.needs_redis else []))


_ENGINE_IO = ((None, '0{"sid":'), ("40", '40{"sid":'))
_CENTRIFUGO_CONNECT = ('{"id":1,"connect":{}}', '"connect":{')

PEERS = {
    peer.name: peer
    for peer in (
        Peer("tutorial", "FastAPI tutorial manager"),
        Peer(
            "tutorial_jwt",
            "FastAPI tutorial manager with a JWT",
            path="/ws?token={token}",
            member_setup=((None, '"welcome"'),),
            publisher_setup=((None, '"welcome"'),),
        ),
        Peer("queues", "queue and sender task per client"),
        Peer("picows_server", "picows"),
        Peer(
            "socketio_room",
            "python-socketio",
            path="/socket.io/?EIO=4&transport=websocket",
            member_setup=_ENGINE_IO,
            publisher_setup=_ENGINE_IO,
            publish_template='42["message","{payload}"]',
            ping=("2", "3"),
        ),
        Peer(
            "channels_group",
            "Django Channels, channels_redis",
            path="/ws/",
            needs_redis=True,
            publish_template='{"message":"{payload}"}',
        ),
        Peer(
            "centrifugo",
            "Centrifugo",
            path="/connection/websocket",
            binary="centrifugo",
            member_setup=(
                _CENTRIFUGO_CONNECT,
                ('{"id":2,"subscribe":{"channel":"bench"}}', '"subscribe":{'),
            ),
            publisher_setup=(_CENTRIFUGO_CONNECT,),
            publish_template='{"id":3,"publish":{"channel":"bench","data":{"text":"{payload}"}}}',
            publisher_hears=False,
            ping=("{}", "{}"),
        ),
    )
}
