"""The OpenAPI document: FastAPI's, with the schemas of the msgspec types."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from msgspec import Struct

from app.http import api_types, errors
from app.http.api_types import EXAMPLES

REF = "#/components/schemas/{name}"

_TYPES = [
    value
    for value in (*vars(api_types).values(), errors.Failure)
    if isinstance(value, type) and issubclass(value, Struct)
    if value is not Struct
]


def reference(kind: type[Struct]) -> dict[str, Any]:
    return {"$ref": REF.format(name=kind.__name__)}


def request_body(kind: type[Struct]) -> dict[str, Any]:
    """For a route's `openapi_extra`."""
    content = {"schema": reference(kind), "example": EXAMPLES[kind.__name__]}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def response(kind: type[Struct], description: str) -> dict[str, Any]:
    """For a route's `responses`."""
    return {"description": description, "content": {"application/json": {"schema": reference(kind)}}}


def install(app: FastAPI) -> None:
    """Replaces `app.openapi`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
            _, components = msgspec.json.schema_components(_TYPES, ref_template=REF)
            document.setdefault("components", {}).setdefault("schemas", {}).update(components)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
