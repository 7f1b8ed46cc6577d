"""Endpoints, declared once: Flask's routes, the validation and the OpenAPI document come from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, get_args

from flask import Blueprint, Response, request
from msgspec import Struct

from app.errors import RequestError, Unauthorized
from app.formats.encoders import Format
from app.web.params import parse

FORMATS: tuple[Format, ...] = get_args(Format)

Method = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an endpoint takes and answers.

    path: with {name} for parts. params: the query parameters' type. body: the JSON body's type. answer: the JSON
    answer's type, None where it is no JSON; status: of success. formats: of the rows, beside JSON. errors: classes
    that it may answer with, beyond those that every endpoint may. scope: what an API key must allow; "" for anybody.
    """

    method: Method
    path: str
    summary: str
    group: str
    scope: str = "read"
    params: type[Struct] | None = None
    body: Any = None
    answer: Any = None
    status: int = 200
    formats: tuple[Format, ...] = ()
    mimetype: str = ""
    errors: tuple[type[RequestError], ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    """Members of the OpenAPI operation that nothing else gives."""


ENDPOINTS: list[Endpoint] = []
"""All of them, in the order of their declaration."""


def endpoint(
    blueprint: Blueprint, declared: Endpoint
) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Declare a view: it is called with the path's parts, and with `params` when it declares any.

    Parts of a path may hold slashes: some brokers' symbols do.
    """
    ENDPOINTS.append(declared)
    rule = declared.path.replace("{", "<path:").replace("}", ">")

    def decorate(view: Callable[..., Response]) -> Callable[..., Response]:
        @wraps(view)
        def call(**parts: str) -> Response:
            if declared.params is None:
                return view(**parts)
            return view(**parts, params=parse(declared.params, request.args.items(multi=True)))

        blueprint.add_url_rule(rule, view.__name__, call, methods=[declared.method])
        return call

    return decorate


def errors_of(declared: Endpoint) -> Sequence[type[RequestError]]:
    """Return every error that an endpoint may answer with, keys included."""
    return (*declared.errors, Unauthorized) if declared.scope else declared.errors
