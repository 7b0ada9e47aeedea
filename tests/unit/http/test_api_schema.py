"""The API against its own OpenAPI document: whatever fits is answered as documented, whatever does not is refused."""

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.main import create_app
from app.settings import load
from tests.unit.http.conftest import KEY

CALLS = ["publish", "broadcast", "batch", "send_to_user", "disconnect", "unsubscribe", "refresh", "revoke"]
CALLS += ["presence", "history", "tickets"]


@pytest.fixture(scope="module")
def schema() -> schemathesis.BaseSchema:
    app: FastAPI = create_app(load(internal_port=0, api_keys=KEY, namespaces={"chat": {"history_size": 10}}))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_is_answered_as_documented(schema: schemathesis.BaseSchema, call: str, mode: GenerationMode) -> None:
    @given(case=schema[f"/api/{call}"]["POST"].as_strategy(generation_mode=mode))
    @settings(
        max_examples=20,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    def check(case: schemathesis.Case) -> None:
        # What a room may be called and how large a number may be is more than a schema can say.
        case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=[positive_data_acceptance])

    check()


def test_rooms_is_answered_as_documented(schema: schemathesis.BaseSchema) -> None:
    schema["/api/rooms"]["GET"].Case().call_and_validate(headers={"X-API-Key": KEY})


def test_drain_is_answered_as_documented(schema: schemathesis.BaseSchema) -> None:
    schema["/api/drain"]["POST"].Case().call_and_validate(headers={"X-API-Key": KEY})


def test_the_document_names_every_call(schema: schemathesis.BaseSchema) -> None:
    assert {f"/api/{call}" for call in (*CALLS, "drain", "rooms")} <= set(schema.raw_schema["paths"])
