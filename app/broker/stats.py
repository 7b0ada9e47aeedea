"""What a broker counts; plain integers that the metrics read."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Totals since the start of this node's broker."""

    #: Publishes that were confirmed.
    publishes: int = 0
    #: Publishes that ended in an error.
    publish_errors: int = 0
    #: Attempts after the first, of any command.
    retries: int = 0
    #: Publications heard.
    received: int = 0
    #: Messages on a room's channel that are not ours to read.
    malformed: int = 0
    #: Connections made again after a loss.
    reconnects: int = 0
    #: Rooms subscribed again after a loss.
    resubscribed: int = 0
    #: Histories with publications missing in between: each was ended by a new epoch (R2).
    holes: int = 0
