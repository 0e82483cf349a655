"""flask-smorest's blueprint, with input checked as strictly as the contract says."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import flask_smorest
from flask import Request, Response
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from app.api.http.bodies import parse_json_object, require_plain_json
from app.api.http.problems import (
    JSON_MEDIA_TYPE,
    MAX_BODY_BYTES,
    HTTPProblem,
    InputError,
    Problem,
    invalid_input,
    invalid_parameter,
    unknown_parameter,
)

_INVALID_BODY = "The request body is not valid"


class _StrictParser(FlaskParser):
    DEFAULT_VALIDATION_STATUS = 400

    def load_json(self, req: Request, schema: Schema) -> dict[str, Any]:  # noqa: ARG002  webargs' signature
        """Return the body's JSON object. No body counts as an empty object."""
        body = req.get_data()
        if not body:
            return {}
        require_plain_json(req)
        return parse_json_object(body)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """Return the query's parameters. Each parameter of the schema may be given only once."""
        _require_utf_8_query(req)
        for name in schema.fields:
            if len(req.args.getlist(name)) > 1:
                raise HTTPProblem(invalid_parameter(f"{name} must be given at most once"))
        return super().load_querystring(req, schema)

    def handle_error(
        self,
        error: ValidationError,
        req: Request,  # noqa: ARG002  webargs' signature
        schema: Schema,
        **_: Any,
    ) -> NoReturn:
        """Raise HTTPProblem, in the words of the first invalid field that has an `error_detail`."""
        ((location, messages),) = error.messages_dict.items()
        details = (_detail_of(schema, name) for name in messages)
        detail = next(filter(None, details), _INVALID_BODY)
        if location == "json":
            raise HTTPProblem(invalid_input(detail, _input_errors(messages))) from None
        raise HTTPProblem(invalid_parameter(detail)) from None


def invalid_member(schema: Schema, name: str) -> Problem:
    """Return the problem of an invalid value in this member of the body."""
    return invalid_input(_detail_of(schema, name) or _INVALID_BODY)


def invalid_parameter_of(schema: Schema, name: str) -> Problem:
    """Return the problem of an invalid value in this parameter or header."""
    return invalid_parameter(_detail_of(schema, name) or _INVALID_BODY)


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest ships no types
    """A blueprint whose `arguments` reject everything that the contract does not allow."""

    ARGUMENTS_PARSER = _StrictParser()

    def __init__(
        self,
        *args: Any,
        authenticates_first: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        **kwargs: Any,
    ) -> None:
        """With `authenticates_first`, the views read the body, once they know the caller."""
        super().__init__(*args, **kwargs)
        self.authenticates_first = authenticates_first
        self.max_body_bytes = max_body_bytes

    def arguments(
        self, schema: type[Schema] | Schema, *, location: str = "json", **options: Any
    ) -> Callable[[Any], Any]:
        """Read the schema's fields from the location. `inputs_of` tells which.

        Given a class, flask-smorest would make a schema, and copy its fields, for each request.
        """
        if isinstance(schema, type):
            schema = schema()
        names = frozenset(schema.fields)
        decorate = super().arguments(schema, location=location, **options)

        def decorator(view: Any) -> Any:
            decorated = decorate(view)
            decorated.inputs = {**inputs_of(view), location: names}
            return decorated

        return decorator

    def response(self, status: int, schema: Any = None, **options: Any) -> Any:
        """Send what the schema shows of the object that the view returns. See flask-smorest.

        A view may also return headers beside the object, or a response that it has made itself.
        """
        if isinstance(schema, type):
            schema = schema()
        document = super().response(status, schema, **options)
        if schema is None or isinstance(schema, dict):  # no content, or no JSON
            return document

        def decorate(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def shown(*args: Any, **kwargs: Any) -> Response:
                result = view(*args, **kwargs)
                if isinstance(result, Response):
                    return result
                obj, headers = result if isinstance(result, tuple) else (result, None)
                body = schema.to_json(obj) + b"\n"
                return Response(body, status, headers, content_type=JSON_MEDIA_TYPE)

            return document(shown)

        return decorate


def inputs_of(view: Any) -> Mapping[str, frozenset[str]]:
    """Return the names of the fields that the view's `arguments` read, by their location."""
    inputs: Mapping[str, frozenset[str]] = getattr(view, "inputs", {})
    return inputs


def reject_unknown_input(request: Request, inputs: Mapping[str, frozenset[str]]) -> None:
    """Raise HTTPProblem if the query or the body has anything that the view does not read.

    If the view reads the body, its `arguments` will judge the members.
    """
    _require_utf_8_query(request)
    for name in request.args:
        if name not in inputs.get("query", ()):
            raise HTTPProblem(unknown_parameter(name))
    if "json" not in inputs and (body := request.get_data()):
        unknown = {name: ["Unknown field"] for name in parse_json_object(body)}
        if unknown:
            raise HTTPProblem(invalid_input(_INVALID_BODY, _input_errors(unknown)))


def _require_utf_8_query(request: Request) -> None:
    try:
        unquote_to_bytes(request.query_string).decode("utf-8")
    except UnicodeDecodeError:  # Werkzeug would replace the invalid bytes
        raise HTTPProblem(invalid_parameter("The query must be UTF-8")) from None


def _detail_of(schema: Schema, name: str) -> str | None:
    """Return the field's own message for an invalid value, if it has one."""
    detail: str | None = getattr(schema.fields.get(name), "error_detail", None)
    return detail and detail.format(name=name)


def _input_errors(messages: Mapping[Any, Any], parent: str = "") -> Iterator[InputError]:
    """Yield each field's JSON pointer (RFC 6901) with what is wrong with it.

    The messages of a list are by the positions of its items.
    """
    for name, what in messages.items():
        pointer = f"{parent}/" + str(name).replace("~", "~0").replace("/", "~1")
        if isinstance(what, Mapping):
            yield from _input_errors(what, pointer)
        else:
            for text in what:
                yield InputError(pointer, text.rstrip("."))
