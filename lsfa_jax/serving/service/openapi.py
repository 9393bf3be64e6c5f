"""The endpoints of the API, and their description as an OpenAPI document."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lsfa_jax import __version__
from lsfa_jax.serving.service.messages import (
    ExplainRequest,
    Explanations,
    Health,
    LabelList,
    Predictions,
    PredictRequest,
    Problem,
)

_PROBLEMS = (400, 401, 404, 408, 413, 422, 429, 503)
_SCHEMAS = "#/components/schemas/"


@dataclass(frozen=True)
class Endpoint:
    """A path of the API."""

    method: str
    path: str
    summary: str
    response: type[BaseModel] | None
    """None: plain text."""
    request: type[BaseModel] | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    """Names and descriptions of query parameters."""
    problems: tuple[int, ...] = _PROBLEMS
    """Statuses of errors."""


ENDPOINTS = (
    Endpoint("POST", "/v1/predict", "The best labels of texts, with probabilities", Predictions, PredictRequest),
    Endpoint("POST", "/v1/explain", "The same with the words that speak for each label", Explanations, ExplainRequest),
    Endpoint(
        "GET",
        "/v1/labels",
        "The labels of a model",
        LabelList,
        parameters=(("model", "its name; by default the first"),),
        problems=(401, 404),
    ),
    Endpoint("GET", "/health", "Whether the service answers, and its models; needs no token", Health, problems=()),
    Endpoint("GET", "/metrics", "Counters in Prometheus's format", None, problems=(401,)),
)


def document() -> dict[str, Any]:
    """Returns the OpenAPI document."""
    kinds = {kind for endpoint in ENDPOINTS for kind in (endpoint.request, endpoint.response, Problem) if kind}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    _, schemas = models_json_schema([(kind, "validation") for kind in ordered], ref_template=_SCHEMAS + "{model}")
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lsfa_jax", "version": __version__, "description": "Labels of texts by trained models."},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "responses": {
            "200": {"description": "OK", "content": _content(endpoint.response)},
            **{
                str(status): {"description": HTTPStatus(status).phrase, "content": _content(Problem)}
                for status in endpoint.problems
            },
        },
    }
    if endpoint.request:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.request)}
    if endpoint.parameters:
        operation["parameters"] = [
            {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
            for name, description in endpoint.parameters
        ]
    return operation


def _content(kind: type[BaseModel] | None) -> dict[str, Any]:
    if kind is None:
        return {"text/plain": {"schema": {"type": "string"}}}
    return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{kind.__name__}"}}}
