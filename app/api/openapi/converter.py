"""Convert marshmallow's schemas to JSON Schema, where apispec's own way does not fit."""

from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema
from marshmallow.fields import Field

from app.api.schemas.fields import RequestTimeField, ResponseSchema, TimestampField

TIMESTAMP = {
    "type": "string",
    "description": "A time: RFC 3339, UTC, whole seconds.",
    "format": "date-time",
}
REQUEST_TIME = {
    "type": "string",
    "description": "A time: RFC 3339, with any offset. A fraction of a second is dropped.",
    "format": "date-time",
}


class _Converter(OpenAPIConverter):
    """Refers to shared base schemas instead of repeating their fields.

    A base class is shared if its name does not begin with an underscore. A schema's description is
    its docstring.
    """

    def schema2jsonschema(self, schema: Schema) -> dict[str, Any]:
        """Return the schema as `oneOf` its kinds, or as `allOf` its bases and its own fields."""
        return {"description": type(schema).__doc__, **self._described(schema)}

    def _described(self, schema: Schema) -> dict[str, Any]:
        if isinstance(schema, ResponseSchema) and schema.one_of:
            return {"oneOf": [self.resolve_nested_schema(each) for each in schema.one_of]}
        bases = [each for each in type(schema).__bases__ if _is_shared(each)]
        if not bases:
            described: dict[str, Any] = super().schema2jsonschema(schema)
            return described
        inherited = {name for each in bases for name in each().fields}
        own = {name: each for name, each in schema.fields.items() if name not in inherited}
        parts = [self.resolve_nested_schema(each) for each in bases]
        if own:
            parts.append(self.fields2jsonschema(own))
        return {"allOf": parts}

    def field2property(self, field: Field[Any]) -> dict[str, Any]:
        """Return the field's JSON Schema. Every time refers to Timestamp or RequestTime."""
        described: dict[str, Any] = super().field2property(field)
        if "const" in field.metadata:  # apispec does not know it
            described["const"] = field.metadata["const"]
        if isinstance(field, RequestTimeField):
            time = self.spec.components.get_ref("schema", "RequestTime")
            return {"description": field.metadata["description"], **time}
        if isinstance(field, TimestampField):
            timestamp = self.spec.components.get_ref("schema", "Timestamp")
            if field.allow_none:
                timestamp = {"anyOf": [timestamp, {"type": "null"}]}
            return {"description": field.metadata["description"], **timestamp}
        return described


def _is_shared(base: type) -> bool:
    is_response = issubclass(base, ResponseSchema) and base is not ResponseSchema
    return is_response and not base.__name__.startswith("_")


class SchemaPlugin(MarshmallowPlugin):
    """apispec's plugin for marshmallow, with our converter."""

    Converter = _Converter
