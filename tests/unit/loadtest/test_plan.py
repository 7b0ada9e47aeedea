"""The settings of a load run, and what is wrong with them in one line."""

import pytest

from loadtest.plan import LoadError, demand_capacity, read

REMOTE = {
    "URL": "https://example.org/",
    "CARILLON_TOKEN_HMAC_SECRET": "first, second",
    "CARILLON_API_KEYS": "key\nother",
}


def test_nothing_set_is_a_chat_on_a_stack_of_its_own() -> None:
    plan = read({})
    assert (plan.url, plan.namespace, plan.scenarios, plan.processes) == ("", "load", ("chat",), 1)


def test_a_deployment_is_named_by_one_url_and_its_first_secrets() -> None:
    plan = read(REMOTE)
    assert plan.ws_url == "wss://example.org/ws"
    assert plan.api_url == "https://example.org"
    assert (plan.secret, plan.api_key, plan.namespace) == ("first", "key", "chat")


def test_the_api_may_be_elsewhere() -> None:
    assert read(REMOTE | {"API_URL": "http://gateway:9000"}).api_url == "http://gateway:9000"


def test_all_is_every_scenario_once() -> None:
    assert read({"SCENARIO": "all"}).scenarios == ("chat", "broadcast", "reconnect_storm")
    assert read({"SCENARIO": "chat,chat"}).scenarios == ("chat",)


def test_a_process_gets_a_thousand_clients() -> None:
    assert read({"USERS": "1000"}).processes == 1
    assert read({"USERS": "1001"}).processes == 2


def test_too_many_clients_for_the_processes_are_refused() -> None:
    plan = read({"USERS": "5000", "PROCESSES": "4"})
    with pytest.raises(LoadError, match="PROCESSES=5 or more"):
        demand_capacity(plan, plan.processes)


@pytest.mark.parametrize(
    ("scenario", "duration", "moments"), [("chat", 60, []), ("all", 60, [10, 30, 50]), ("all", 4, [2])]
)
def test_storms_come_evenly_and_at_least_once(scenario: str, duration: int, moments: list[float]) -> None:
    assert read({"SCENARIO": scenario, "DURATION": str(duration)}).storms() == moments


def test_what_is_published_over_http_is_the_rate_of_each_scenario() -> None:
    plan = read({"SCENARIO": "all", "USERS": "300", "ROOM_SIZE": "20", "RATE": "10"})
    rooms = plan.rooms_over_http()
    assert len(rooms) == 1 + 5
    assert sum(rate for _, rate in rooms) == pytest.approx(20)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"SCENARIO": "chats"}, "SCENARIO=chats is none: there are chat, broadcast, reconnect_storm"),
        ({"USERS": "many"}, "USERS=many must be a whole number from 1"),
        ({"USERS": "0"}, "USERS=0 must be"),
        ({"USERS": "²"}, "USERS=² must be"),
        ({"USERS": "2", "SCENARIO": "all"}, "fewer than the 3 scenarios"),
        ({"RATE": "-1"}, "RATE=-1 must be a number above 0"),
        ({"DURATION": "nan"}, "DURATION=nan must be a number"),
        ({"PROCESSES": "0"}, "PROCESSES=0 must be"),
        ({"NAMESPACE": "a:b"}, "NAMESPACE=a:b is not the name"),
        ({"URL": "example.org"}, "URL=example.org must be http://"),
        ({"URL": "http://[::1"}, "URL=http://\\[::1 must be http://"),
        ({"URL": "http://example.org"}, "CARILLON_TOKEN_HMAC_SECRET is not set"),
        (REMOTE | {"CARILLON_API_KEYS": "", "SCENARIO": "broadcast"}, "CARILLON_API_KEYS is not set"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(environ: dict[str, str], says: str) -> None:
    with pytest.raises(LoadError, match=says) as raised:
        read(environ)
    assert "\n" not in str(raised.value)
