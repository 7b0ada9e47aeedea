"""Before a run: one client, one publication. What is wrong with deployment or settings is said here, in a line."""

import httpx

from loadtest.connection import Connection, Ended
from loadtest.plan import API_KEYS, SECRET, LoadError, Plan
from loadtest.tokens import token

TIMEOUT = 10.0


def check(plan: Plan) -> None:
    """Raises LoadError."""
    room = plan.room("preflight")
    try:
        connection = Connection(plan.ws_url, token(plan, "load-preflight"))
    except Ended as ended:
        raise LoadError(f"{plan.ws_url} takes no client ({ended.reason}){_hint(ended.reason)}.") from None
    try:
        has_history = bool(connection.enter(room, None)["epoch"])
    except Ended as ended:
        raise LoadError(
            f"URL={plan.url}: room {room} cannot be entered ({ended.reason}){_hint(ended.reason)}."
        ) from None
    finally:
        connection.close()
    if "reconnect_storm" in plan.scenarios and not has_history:
        raise LoadError(
            f"NAMESPACE={plan.namespace} keeps no history there, so that nobody who comes back can recover: "
            "reconnect_storm needs a namespace with history_size."
        )
    if plan.over_http:
        _publish(plan, room)


def _publish(plan: Plan, room: str) -> None:
    url = f"{plan.api_url}/api/publish"
    try:
        answer = httpx.post(
            url, json={"room": room, "data": 0}, headers={"X-API-Key": plan.api_key}, timeout=TIMEOUT, trust_env=False
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LoadError(
            f"{url} cannot be reached ({type(error).__name__}); name the server API with API_URL."
        ) from None
    if answer.status_code == 401:
        raise LoadError(f"{url} does not take the first key of {API_KEYS}.")
    if answer.status_code != 200:
        raise LoadError(f"{url} answers {answer.status_code}: the server API is elsewhere; name it with API_URL.")


def _hint(reason: str) -> str:
    hints = {
        "3500": f": {SECRET} is not the one of the deployment",
        "error 102": ": NAMESPACE names none of the deployment's namespaces",
        "error 103": ": tokens may not subscribe there, see the namespace's `subscribe`",
        "HTTP 404": ": the gateway is not there",
        "HTTP 403": ": something in front refuses clients without Origin",
    }
    return hints.get(reason, "")
