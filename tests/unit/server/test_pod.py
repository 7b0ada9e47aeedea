"""The pod's shared memory (N1)."""

import math
import os

import pytest

from app.server.pod import STALLED_AFTER, PodState, Slot, State, own_slot
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pod_of(clock: Clock, *states: State) -> PodState:
    pod = PodState(len(states), clock)
    for index, state in enumerate(states):
        pod.slot(index).claim()
        pod.slot(index).enter()
        if state is not State.STARTING:
            pod.slot(index).beat(state)
    return pod


def test_ready_when_every_worker_is(clock: Clock) -> None:
    verdict = pod_of(clock, State.READY, State.READY).worst()
    assert verdict.ready
    assert verdict.reason == ""


@pytest.mark.parametrize("state", [State.STARTING, State.LAGGING, State.BROKER_UNREACHABLE, State.DEAF, State.DRAINING])
def test_one_worker_that_is_not_ready_speaks_for_the_pod(clock: Clock, state: State) -> None:
    verdict = pod_of(clock, State.READY, state, State.READY).worst()
    assert not verdict.ready
    assert (verdict.state, verdict.slot) == (state, 1)
    assert "worker 1 is" in verdict.reason


def test_the_worst_of_several(clock: Clock) -> None:
    assert pod_of(clock, State.DEAF, State.DRAINING, State.LAGGING).worst().slot == 1


def test_an_old_heartbeat_is_stalled_and_a_new_one_heals_it(clock: Clock) -> None:
    pod = pod_of(clock, State.READY, State.READY)
    clock.now += STALLED_AFTER
    pod.slot(0).beat(State.READY)
    assert pod.worst().ready
    clock.now += 0.1
    assert (pod.worst().state, pod.worst().slot) == (State.STALLED, 1)
    assert "no heartbeat for 3.1 s" in pod.worst().reason
    pod.slot(1).beat(State.READY)
    assert pod.worst().ready


def test_a_missing_worker_makes_the_pod_unready(clock: Clock) -> None:
    pod = pod_of(clock, State.READY, State.READY)
    pod.slot(0).release()
    assert pod.worst().state is State.STARTING
    assert pod.worst().reason == "1 of 2 workers are up"
    assert [slot.index for slot in pod.live()] == [1]


def test_started_does_not_need_the_broker(clock: Clock) -> None:
    assert pod_of(clock, State.BROKER_UNREACHABLE, State.DEAF).started
    assert not pod_of(clock, State.READY, State.STARTING).started


def test_a_drain_is_not_taken_back_by_a_heartbeat(clock: Clock) -> None:
    pod = pod_of(clock, State.READY)
    pod.slot(0).drain()
    pod.slot(0).beat(State.READY)
    assert pod.worst().state is State.DRAINING


def test_the_successor_in_a_slot_begins_anew(clock: Clock) -> None:
    pod = pod_of(clock, State.DRAINING)
    pod.slot(0).claim()
    assert pod.slot(0).state is State.STARTING
    assert pod.slot(0).describe()["echo_age"] is None


def test_no_process_id_is_told_that_would_mean_many_to_kill(clock: Clock) -> None:
    """kill(2): 0 is the caller's whole group, -1 is everything."""
    pod = pod_of(clock, State.READY)
    slot = pod.slot(0)
    assert slot.describe()["pid"] == os.getpid()
    slot.claim()
    assert slot.pid is None
    assert slot.describe()["pid"] is None
    slot.release()
    assert slot.pid is None


def test_other_processes_see_what_one_writes(clock: Clock) -> None:
    pod = pod_of(clock, State.STARTING)
    child = os.fork()
    if child == 0:
        pod.slot(0).beat(State.DEAF, echo_age=7.5)
        os._exit(0)
    os.waitpid(child, 0)
    assert pod.slot(0).state is State.DEAF
    assert pod.slot(0).echo_age == 7.5


def test_without_gunicorn_a_process_is_a_pod_of_its_own() -> None:
    first, second = own_slot(), own_slot()
    assert isinstance(first, Slot)
    first.beat(State.READY)
    assert first.pod.worst().ready
    assert not second.pod.worst().ready
    assert math.isinf(second.echo_age)
    assert second.pid == os.getpid()


def test_only_a_child_of_the_master_can_end_the_pod() -> None:
    """Whatever bears its number else is not signalled."""
    assert not PodState.create(1).end(), "this process is the master itself"
    assert not own_slot().pod.end()
