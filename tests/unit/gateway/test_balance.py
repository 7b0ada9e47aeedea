"""Who sends sessions away, how many and when: decided from what nodes say, with a clock of the test's own."""

from collections.abc import Sequence

import pytest
from msgspec import structs

from app.gateway.balance import INTERVAL, LEAST, ON_THE_WAY, RETURN, SETTLE, SILENCE, Balance, Load


def load(
    node: str,
    sessions: int,
    *,
    pod: str | None = None,
    moving: int = 0,
    draining: bool = False,
    above: bool = False,
    refuses: bool = True,
) -> Load:
    return Load(node, pod or node, sessions, moving, draining, above, refuses)


class View:
    """What one node has heard of the others, who say the same each second."""

    def __init__(self, *others: Load, tolerance: float = 0.1) -> None:
        self.now = 100.0
        self.others = others
        self.balance = Balance("own-pod", tolerance)

    def at_rest(self, sessions: int, **options: object) -> int:
        """What it decides when nobody has come or gone for long enough."""
        end = self.now + SETTLE + INTERVAL
        while self.now < end:
            excess = self.decide(sessions, **options)
        return excess

    def decide(self, sessions: int, **options: object) -> int:
        self.now += INTERVAL
        for other in self.others:
            self.balance.hear(other, self.now)
        return self.balance.decide(load("own", sessions, **{"pod": "own-pod"} | options), self.now)  # type: ignore[arg-type]


def test_who_holds_its_share_keeps_all() -> None:
    assert View(load("b", 100)).at_rest(100) == 0


def test_half_of_the_excess_goes_in_one_round() -> None:
    """Down to half of the tolerance above the average: 200 -> 105."""
    assert View(load("b", 0)).at_rest(200) == 48


@pytest.mark.parametrize(("sessions", "goes"), [(1, 0), (110, 0), (111, 0), (125, 3)])
def test_within_the_tolerance_nobody_goes(sessions: int, goes: int) -> None:
    """125 of 225 are 11 % above 112.5, and 6 above the 119 that are half of that."""
    assert View(load("b", 100)).at_rest(sessions) == goes


def test_few_sessions_are_not_worth_it() -> None:
    assert View(load("b", 0)).at_rest(2 * LEAST) == 0
    assert View(load("b", 0)).at_rest(2 * LEAST + 2) > 0


def test_what_goes_on_the_way_still_counts_for_the_average() -> None:
    """Else a pod sends away more and more while those who went are not counted anywhere."""
    assert View(load("b", 40)).at_rest(105, moving=55) == 0


def test_the_nodes_of_one_pod_share_its_excess() -> None:
    others = [load("own-2", 100, pod="own-pod"), load("b-1", 0, pod="b"), load("b-2", 0, pod="b")]
    assert View(*others).at_rest(100, pod="own-pod") == 24


def test_a_pod_below_its_share_sends_nobody_whatever_one_of_its_nodes_holds() -> None:
    others = [load("own-2", 0, pod="own-pod"), load("b-1", 100, pod="b")]
    assert View(*others).at_rest(100, pod="own-pod") == 0


def test_alone_there_is_nobody_to_send_to() -> None:
    assert View().at_rest(1000) == 0


class TestInMotion:
    """A fleet that changes is left alone: who moves now would move twice."""

    def test_a_newcomer_is_not_sent_to_at_once(self) -> None:
        view = View(load("b", 100))
        view.at_rest(100)
        view.others += (load("c", 0),)
        waited = 0
        while not view.decide(100):
            waited += 1
        assert waited == SETTLE / INTERVAL

    def test_nobody_moves_while_one_drains(self) -> None:
        view = View(load("b", 0), load("c", 100, draining=True))
        assert view.at_rest(200) == 0

    def test_who_is_silent_counts_no_more(self) -> None:
        view = View(load("b", 0))
        assert view.at_rest(200)
        view.others = ()
        decided = [view.decide(200) for _ in range(10)]
        assert decided[int(SILENCE) :] == [0] * (10 - int(SILENCE)), "it is alone now"

    def test_after_a_silence_of_all_it_waits_again(self) -> None:
        """As after an outage of the broker, where everybody seems to be gone."""
        view = View(load("b", 0))
        view.at_rest(200)
        view.now += SILENCE + INTERVAL
        assert [view.decide(200) for _ in range(2)] == [0, 0]


def test_a_large_fleet_speaks_less_often_and_waits_longer() -> None:
    """200 nodes that spoke each second would be 40,000 deliveries a second."""
    view = View(*(load(f"b-{number}", 10) for number in range(199)))
    assert view.decide(200) == 0
    assert (view.balance.interval, view.balance.on_the_way) == (4 * INTERVAL, 4 * ON_THE_WAY)
    waited = 1
    while not view.decide(200):
        waited += 1
    assert waited == 4 * SETTLE / INTERVAL
    view.others = ()
    for _ in range(int(4 * SILENCE / INTERVAL)):
        view.decide(200)
    assert view.balance.interval == 4 * INTERVAL, "nobody is given up yet"
    view.decide(200)
    assert view.balance.interval == INTERVAL


class TestRefusing:
    def test_who_is_above_its_share_takes_nobody_back_and_a_little_longer(self) -> None:
        view = View(load("b", 0))
        assert not view.balance.refuses(view.now)
        view.at_rest(200)
        assert view.balance.refuses(view.now + RETURN - 0.1)
        assert not view.balance.refuses(view.now + RETURN)

    def test_nobody_is_sent_away_before_all_nodes_of_the_pod_refuse(self) -> None:
        """Who is sent away by one of them comes back to any."""
        fellow = load("own-2", 100, pod="own-pod", refuses=False)
        view = View(fellow, load("b", 0, refuses=False))
        assert view.at_rest(100) == 0
        assert view.balance.above
        assert view.balance.refuses(view.now)
        view.others = (load("own-2", 100, pod="own-pod"), load("b", 0, refuses=False))
        assert view.decide(100) > 0

    def test_the_nodes_of_a_pod_refuse_when_one_of_them_says_so(self) -> None:
        view = View()
        view.balance.hear(load("b", 200, above=True), view.now)
        view.balance.hear(load("own-2", 200, pod="own-pod"), view.now)
        assert not view.balance.refuses(view.now), "that it refuses is no reason, or it would never end"
        view.balance.hear(load("own-2", 200, pod="own-pod", above=True), view.now)
        assert view.balance.refuses(view.now)

    def test_never_do_all_refuse(self) -> None:
        """N4: whoever is sent on is taken somewhere."""
        fleet = Fleet([1000, 900, 10, 0])
        for _ in range(60):
            fleet.round()
            assert not all(node.refuses(fleet.now) for node in fleet.nodes)


class Fleet:
    """Pods of one or more nodes, who hear of each other one round late; who is sent away comes to the emptiest pod some
    rounds later."""

    def __init__(self, sessions: Sequence[int], *, workers: int = 1, rate: int = 20) -> None:
        names = [(f"{pod}-{worker}", str(pod)) for pod in range(len(sessions)) for worker in range(workers)]
        self.nodes = [Balance(pod, 0.1) for _, pod in names]
        self.names = names
        self.held = [count // workers for count in sessions for _ in range(workers)]
        self.rate = rate
        self.moves = 0
        self.now = 0.0
        self._on_the_way: list[tuple[float, int]] = []
        self._sent: list[list[tuple[float, int]]] = [[] for _ in names]
        self._said: list[Load] = []

    def round(self) -> int:
        """One second; how many were sent away."""
        self.now += INTERVAL
        arrived = sum(count for due, count in self._on_the_way if due <= self.now)
        self._on_the_way = [(due, count) for due, count in self._on_the_way if due > self.now]
        for _ in range(arrived):
            self.held[min(range(len(self.held)), key=self.held.__getitem__)] += 1
        said, goes = [], 0
        for index, node in enumerate(self.nodes):
            for other in self._said:
                if other.node != self.names[index][0]:
                    node.hear(other, self.now)
            self._sent[index] = [(at, count) for at, count in self._sent[index] if at > self.now - ON_THE_WAY]
            own = Load(*self.names[index], self.held[index], sum(count for _, count in self._sent[index]), False)
            count = min(node.decide(own, self.now), self.rate)
            own = structs.replace(own, above=node.above, refuses=node.refuses(self.now))
            self.held[index] -= count
            self._sent[index].append((self.now, count))
            goes += count
            said.append(own)
        self._said = said
        self._on_the_way.append((self.now + 2 * INTERVAL, goes))
        self.moves += goes
        return goes

    @property
    def pods(self) -> list[int]:
        workers = len(self.names) // len({pod for _, pod in self.names})
        return [sum(self.held[at : at + workers]) for at in range(0, len(self.held), workers)]


@pytest.mark.parametrize("rate", [20, 1000])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("sessions", [[200, 0], [1000, 0], [1000, 1000, 0], [500, 400, 300, 200, 100, 0]])
def test_a_fleet_evens_out_and_comes_to_rest(sessions: list[int], workers: int, rate: int) -> None:
    """With views that are late, in the fewest moves: nobody goes to and fro."""
    fleet = Fleet(sessions, workers=workers, rate=rate)
    for _ in range(150):
        fleet.round()
    average = sum(sessions) / len(sessions)
    assert sum(fleet.pods) == sum(sessions)
    assert max(fleet.pods) <= average * 1.1 + LEAST
    needed = sum(max(0, count - average) for count in sessions)
    assert fleet.moves <= needed * 1.05
    assert [fleet.round() for _ in range(20)] == [0] * 20
