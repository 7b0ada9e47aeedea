"""The moments that all clients of a process have in common."""

import pytest
from gevent import idle
from gevent.event import Event

from loadtest import share as shares
from loadtest.plan import read
from loadtest.share import Share


class Client:
    def __init__(self) -> None:
        self.settles, self.has_given_up = Event(), Event()

    def cut(self) -> None: ...

    def settle(self) -> None:
        self.settles.set()

    def give_up(self) -> None:
        self.has_given_up.set()


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Share:
    monkeypatch.setattr(shares, "LINGER", 0)
    monkeypatch.setattr(shares, "SETTLE", 0)
    return Share(read({"SCENARIO": "broadcast"}), 0, lambda **_: None)


def test_clients_ask_what_there_is_to_have_when_the_last_publication_is_answered(share: Share) -> None:
    """One that is accepted after the question, and then lost, would not be missed."""
    client = Client()
    share.clients.append(client)
    with share.publishing():
        with share.publishing():
            share.end()
            idle()
            assert share.quiet.is_set(), "nobody begins to publish any more"
        idle()
        assert not client.settles.is_set()
        assert not share.is_complete
    assert client.settles.wait(5)
    assert share.is_complete
    assert client.has_given_up.wait(5)


def test_where_nothing_is_under_way_they_ask_at_once(share: Share) -> None:
    client = Client()
    share.clients.append(client)
    share.end()
    assert client.settles.wait(5)
