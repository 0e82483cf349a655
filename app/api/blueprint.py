"""flask-smorest's blueprint, with input as strict as the contract has it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import flask_smorest
from flask import Request, g
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import UnsupportedMediaType

from app.api.errors import InvalidInput


class _StrictParser(FlaskParser):
    DEFAULT_VALIDATION_STATUS = 400

    def load_json(self, req: Request, schema: Schema) -> dict[str, Any]:  # noqa: ARG002  webargs' signature
        """Return the body's JSON object; no body is an empty object."""
        if not g.body:
            return {}
        _require_plain_json(req)
        return parse_json_object(g.body)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """Return the query's parameters; one that the schema knows stands there once at most."""
        for name in schema.fields:
            if len(req.args.getlist(name)) > 1:
                raise InvalidInput(f"{name} must be given once")
        return super().load_querystring(req, schema)

    def handle_error(
        self,
        error: ValidationError,
        req: Request,  # noqa: ARG002  webargs' signature
        schema: Schema,
        **_: Any,
    ) -> NoReturn:
        """Raise InvalidInput, in the words of the first field that has a `problem` of its own."""
        ((location, messages),) = error.messages_dict.items()
        problems = [getattr(schema.fields.get(name), "problem", None) for name in messages]
        detail = next(filter(None, problems), "The request body is not valid")
        # a pointer points into the body, so there is none to a parameter of the query
        raise InvalidInput(detail, _pointers(messages) if location == "json" else ()) from None


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest ships no types
    """A blueprint whose `arguments` refuse whatever the contract does not allow."""

    ARGUMENTS_PARSER = _StrictParser()


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object (RFC 8259) in the bytes, or raise InvalidInput.

    Beyond what `json` refuses: invalid UTF-8, NaN and Infinity, a member named twice, anything that
    is no object.
    """
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        # also UnicodeDecodeError, JSONDecodeError and an integer of thousands of digits
        raise InvalidInput("The request body is not valid JSON") from None
    if not isinstance(document, dict):
        raise InvalidInput("The request body is not a JSON object")
    return document


def _require_plain_json(req: Request) -> None:
    if req.mimetype != "application/json":
        raise UnsupportedMediaType("The request body must be application/json")
    if req.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        raise UnsupportedMediaType("The request body must be UTF-8")
    if "Content-Encoding" in req.headers:
        raise UnsupportedMediaType("The request body must come without a Content-Encoding")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _pointers(messages: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Yield each field's JSON pointer (RFC 6901) with what is wrong with it."""
    for name, texts in messages.items():
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        for text in texts:
            yield pointer, text.rstrip(".")
