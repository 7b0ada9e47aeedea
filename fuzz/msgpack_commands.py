"""Commands as MessagePack: the same promises as for JSON."""

from app.wire.plain import MSGPACK
from fuzz.json_commands import take


def fuzz(data: bytes) -> None:
    """One message."""
    take(MSGPACK, data)
