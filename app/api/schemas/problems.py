"""Schemas of problem documents, which app/api/http/problems.py makes."""

from marshmallow import fields, validate

from app.api.schemas.fields import ResponseSchema, TimestampField, text_field


class InputErrorSchema(ResponseSchema):
    """What is wrong with one member of the request body."""

    pointer = fields.String(
        required=True,
        metadata={
            "description": "The member, as a JSON pointer (RFC 6901) into the request body.",
            "format": "json-pointer",
        },
    )
    detail = text_field("What is wrong with it.")


class ProblemSchema(ResponseSchema):
    """An error (RFC 9457)."""

    type = fields.String(
        required=True,
        metadata={
            "description": "The kind of problem, for programs to branch on: the same text in every "
            "installation. Its fragment names the section of the page `docs/errors` that explains "
            "the cause and the remedy. New kinds may be added; treat an unknown kind by its "
            "status.",
            "format": "uri-reference",
        },
    )
    title = text_field("The status phrase.")
    status = fields.Integer(
        required=True,
        validate=validate.Range(400, 599),
        metadata={"description": "The HTTP status."},
    )
    detail = text_field("What went wrong.")
    errors = fields.List(
        fields.Nested(InputErrorSchema),
        validate=validate.Length(min=1),
        metadata={"description": "For an invalid body: what is wrong with each member."},
    )
    last_used_at = TimestampField(
        "For a credential that was used too recently to be revoked: its last use.",
        required=False,
    )
