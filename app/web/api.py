"""Endpoints, declared once: Flask's routes, the validation and the OpenAPI document come from here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, get_args

from flask import Blueprint, Response, request
from msgspec import Struct

from app.errors import RequestError
from app.formats.encoders import Format
from app.web.auth import needs
from app.web.params import parse

FORMATS: tuple[Format, ...] = get_args(Format)

Method = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an endpoint takes and answers.

    path: with {name} for parts. params: the query parameters' type; None: there are none, and what is sent is ignored.
    body: the JSON body's type. body_formats: mimetypes that it may have as well, as text. answer: the JSON answer's
    type, None where it is no JSON; status: of success. also: the types of further JSON answers that are no errors in
    shape, by status. formats: of the rows, beside JSON; answers with rows have an ETag where their range is closed.
    etag: every answer has one. mimetype: of an answer that is no JSON. errors: classes that it may answer with, beyond
    those of its key. row_codes: of rows that are refused; one that is all of the request is a 400. error: the errors'
    type, where they have members of their own. scope: what an API key must allow; "" for anybody.
    """

    method: Method
    path: str
    summary: str
    group: str
    scope: str = "read"
    description: str = ""
    params: type[Struct] | None = None
    body: Any = None
    body_formats: tuple[str, ...] = ()
    answer: Any = None
    status: int = 200
    also: Mapping[int, Any] = field(default_factory=dict)
    formats: tuple[Format, ...] = ()
    etag: bool = False
    mimetype: str = ""
    errors: tuple[type[RequestError], ...] = ()
    row_codes: tuple[str, ...] = ()
    error: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Members of the OpenAPI operation that nothing else gives."""

    @property
    def parts(self) -> list[str]:
        """Return the names of the path's parts."""
        return re.findall(r"{(\w+)}", self.path)


ENDPOINTS: list[Endpoint] = []
"""All of them, in the order of their declaration."""


def endpoint(
    blueprint: Blueprint, declared: Endpoint
) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Declare a view: it is called with the path's parts, and with `params` when it declares any.

    The key is looked at before anything else is. Parts of a path may hold slashes: some brokers' symbols do.
    """
    ENDPOINTS.append(declared)
    rule = declared.path.replace("{", "<path:").replace("}", ">")
    check_key = needs(declared.scope) if declared.scope else None

    def decorate(view: Callable[..., Response]) -> Callable[..., Response]:
        @wraps(view)
        def call(**parts: str) -> Response:
            if check_key is not None:
                check_key()
            if declared.params is None:
                return view(**parts)
            return view(**parts, params=parse(declared.params, request.args.items(multi=True)))

        blueprint.add_url_rule(rule, view.__name__, call, methods=[declared.method])
        return call

    return decorate
