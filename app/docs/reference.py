"""The reference: each operation of the OpenAPI document, in the shape that the pages show."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from werkzeug.http import HTTP_STATUS_CODES

from app.api.http.problems import MEDIA_TYPE

_METHODS = ("get", "post", "patch", "put", "delete")
_AUTHENTICATION = {"bearerAuth": "bearer token", "basicAuth": "client ID and client secret"}
_COMMON_HEADER = "X-Request-Id"  # the guide explains it once, for every call
_MAX_UNFOLDED = 5  # members of members


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, a header, or a member of a body, with the members that it contains."""

    name: str
    anchor: str
    type: str
    required: bool
    deprecated: bool
    description: str
    fields: list["Field"]

    @property
    def is_long(self) -> bool:
        """Whether the members are so many that the page folds them."""
        return sum(1 for _ in fields_within(self.fields)) > _MAX_UNFOLDED


@dataclass(frozen=True, slots=True)
class Parameter(Field):
    """A field outside a body. `location` is `path`, `query`, `header`, `cookie` or `response`.

    `choices` are all values that it may have, or empty.
    """

    location: str
    example: object
    choices: list[str]


@dataclass(frozen=True, slots=True)
class Failure:
    """The kinds of problem that share a status, by their slugs."""

    status: int
    phrase: str
    slugs: list[str]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a request, or the response, with its fields.

    `marks_required` tells whether the caller may leave out some of the fields.
    """

    title: str
    anchor: str
    fields: list[Field]
    marks_required: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """One call."""

    id: str
    deprecated: bool
    method: str
    path: str
    tag: str
    summary: str
    description: str
    scheme: str | None
    parameters: list[Parameter]
    body: list[Field]
    body_example: object
    success: int
    headers: list[Field]
    response: list[Field]
    response_is_list: bool
    response_is_text: bool
    response_example: object
    failures: list[Failure]

    @property
    def authentication(self) -> str | None:
        return _AUTHENTICATION[self.scheme] if self.scheme else None

    def parameters_in(self, location: str) -> list[Parameter]:
        return [each for each in self.parameters if each.location == location]

    def sections(self) -> list[Section]:
        """Return the parts of the request that have fields, and the response."""
        request = [
            Section("Path", f"{self.id}.path", [*self.parameters_in("path")], marks_required=False),
            Section("Query", f"{self.id}.query", [*self.parameters_in("query")]),
            Section("Headers", f"{self.id}.header", [*self.parameters_in("header")]),
            Section("Cookies", f"{self.id}.cookie", [*self.parameters_in("cookie")]),
            Section("Body", f"{self.id}.request", self.body),
        ]
        response = Section(
            f"Response: {self.success}{self._shape}",
            f"{self.id}.response",
            [*self.headers, *self.response],
            marks_required=False,
        )
        return [each for each in request if each.fields] + [response]

    def fields(self) -> Iterator[Field]:
        """Yield every field of the request and of the response."""
        for section in self.sections():
            yield from fields_within(section.fields)

    @property
    def _shape(self) -> str:
        if self.response_is_list:
            return ", an array"
        if self.response_is_text:
            return ", text"
        return "" if self.response else ", without a body"


@dataclass(frozen=True, slots=True)
class Group:
    """The operations of one tag."""

    name: str
    description: str
    operations: list[Operation]


@dataclass(frozen=True, slots=True)
class Reference:
    """All operations of the document, grouped by tag."""

    version: str
    groups: list[Group]

    @property
    def operations(self) -> Iterator[Operation]:
        return (operation for group in self.groups for operation in group.operations)

    def operation(self, operation_id: str) -> Operation:
        return next(each for each in self.operations if each.id == operation_id)

    def deprecated(self) -> Iterator[tuple[str, str]]:
        """Yield the anchor and the name of each call and each field that is deprecated."""
        for each in self.operations:
            if each.deprecated:
                yield each.id, f"{each.method} {each.path}"
            for field in each.fields():
                if field.deprecated:
                    yield field.anchor, f"{field.name} of {each.method} {each.path}"


def fields_within(fields: Iterable[Field]) -> Iterator[Field]:
    """Yield the fields, each followed by those that it contains."""
    for each in fields:
        yield each
        yield from fields_within(each.fields)


def read_reference(document: dict[str, Any]) -> Reference:
    """Return the reference of an OpenAPI 3.1 document whose references are all local."""
    reader = _Reader(document)
    operations = list(reader.operations())
    return Reference(
        version=document["info"]["version"],
        groups=[
            Group(
                tag["name"],
                tag["description"],
                [each for each in operations if each.tag == tag["name"]],
            )
            for tag in document["tags"]
        ],
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    document: Mapping[str, Any]

    def operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            for method in _METHODS:
                if method in item:
                    yield self._operation(path, method, item[method], item.get("parameters", []))

    def _operation(
        self, path: str, method: str, source: Mapping[str, Any], of_path: list[dict[str, Any]]
    ) -> Operation:
        anchor = source["operationId"]
        responses = {
            int(code): self.resolve(each)
            for code, each in source["responses"].items()
            if code.isdecimal()  # not `default`, which says what the guide says for every call
        }
        success = min(responses)
        response = responses[success]
        content = self._json(response)
        schema = self.resolve(content.get("schema", {}))
        is_list = schema.get("type") == "array"
        body = self._json(self.resolve(source.get("requestBody", {})))
        parameters = [self.resolve(each) for each in (*of_path, *source.get("parameters", []))]
        (scheme,) = next(iter(source.get("security", [])), {None: []})
        return Operation(
            id=anchor,
            deprecated=source.get("deprecated", False),
            method=method.upper(),
            path=path,
            tag=source["tags"][0],
            summary=source["summary"],
            description=source.get("description", ""),
            scheme=scheme,
            parameters=[
                self._parameter(each["name"], each, anchor, location=each["in"])
                for each in parameters
                if each["name"] != _COMMON_HEADER
            ],
            body=self._members(body.get("schema", {}), f"{anchor}.request"),
            body_example=body.get("example"),
            success=success,
            headers=[
                self._parameter(name, self.resolve(each), anchor, location="response")
                for name, each in response.get("headers", {}).items()
                if name != _COMMON_HEADER
            ],
            response=_in_order_of(
                content.get("example"),
                self._members(schema["items"] if is_list else schema, f"{anchor}.response"),
            ),
            response_is_list=is_list,
            response_is_text="text/plain" in response.get("content", {}),
            response_example=content.get("example"),
            failures=[
                Failure(code, HTTP_STATUS_CODES[code], _slugs(response))
                for code, response in sorted(responses.items())
                if code >= HTTPStatus.BAD_REQUEST
            ],
        )

    def resolve(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a local `$ref`. Members beside it override those of its target."""
        if "$ref" not in value:
            return value
        target: Any = self.document
        for key in value["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        return {**self.resolve(target), **{k: v for k, v in value.items() if k != "$ref"}}

    @staticmethod
    def _json(message: Mapping[str, Any]) -> Mapping[str, Any]:
        content: Mapping[str, Any] = message.get("content", {}).get("application/json", {})
        return content

    def _parameter(
        self, name: str, source: Mapping[str, Any], anchor: str, *, location: str
    ) -> Parameter:
        schema = self.resolve(source["schema"])
        return Parameter(
            name=name,
            anchor=f"{anchor}.{location}.{name}",
            type=self._type(schema),
            required=source.get("required", False),
            deprecated=source.get("deprecated", False),
            description=source["description"],
            fields=[],
            location=location,
            example=source.get("example", next(iter(schema.get("examples", [])), None)),
            choices=[str(each) for each in schema.get("enum", [])],
        )

    def _members(self, schema: Mapping[str, Any], anchor: str) -> list[Field]:
        schema = self.resolve(schema)
        if "oneOf" in schema:
            return self._members_by_kind([self.resolve(kind) for kind in schema["oneOf"]], anchor)
        if "anyOf" in schema:  # an object, or also a list of such
            return self._members(schema["anyOf"][0], anchor)
        properties, required = self._properties(schema)
        return [
            self._member(name, self.resolve(each), f"{anchor}.{name}", required=name in required)
            for name, each in properties.items()
        ]

    def _member(
        self, name: str, schema: Mapping[str, Any], anchor: str, *, required: bool
    ) -> Field:
        inner = self.resolve(schema["items"]) if schema.get("type") == "array" else schema
        return Field(
            name=name,
            anchor=anchor,
            type=self._type(schema),
            required=required,
            deprecated=schema.get("deprecated", False),
            description=schema.get("description", ""),
            fields=self._members(inner, anchor),
        )

    def _members_by_kind(self, kinds: list[Mapping[str, Any]], anchor: str) -> list[Field]:
        """Return the members of an object of several kinds.

        One member is a constant that names the kind. Any other member that differs is shown once
        for each kind.
        """
        properties = [self._properties(kind)[0] for kind in kinds]
        members = self._members(kinds[0], anchor)
        for index, member in enumerate(members):
            variants = [self.resolve(each[member.name]) for each in properties]
            if variants.count(variants[0]) == len(variants):
                continue
            if "const" in variants[0]:
                names = [each.get("const", "another") for each in variants]
                members[index] = replace(
                    member, type=" or ".join((", ".join(names[:-1]), names[-1]))
                )
            else:
                inner = [
                    self._member(name, each, f"{member.anchor}.{name}", required=False)
                    for name, each in zip(names, variants, strict=True)
                ]
                description = "Depends on what happened."
                members[index] = replace(member, description=description, fields=inner)
        return members

    def _properties(self, schema: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """Return the members of an object, and the names of the required ones."""
        schema = self.resolve(schema)
        properties: dict[str, Any] = {}
        required: set[str] = set()
        for part in schema.get("allOf", []):
            inherited, needed = self._properties(part)
            properties |= inherited
            required |= needed
        return properties | schema.get("properties", {}), required | set(schema.get("required", []))

    def _type(self, schema: Mapping[str, Any]) -> str:
        """Describe in a few words which values are allowed."""
        if "anyOf" in schema:
            return " or ".join(self._type(self.resolve(each)) for each in schema["anyOf"])
        if "const" in schema:
            return str(schema["const"])
        kinds = schema.get("type", "object")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        name = " or ".join("timestamp" if _is_time(schema, kind) else kind for kind in kinds)
        if schema.get("type") == "array":
            return f"array of {self._type(self.resolve(schema['items']))}s"
        if "enum" in schema:
            return ", ".join(map(str, schema["enum"]))
        if "minimum" in schema and "maximum" in schema:
            name += f", {schema['minimum']}-{schema['maximum']}"
        if "default" in schema:
            name += f", default {schema['default']}"
        return name


def _is_time(schema: Mapping[str, Any], kind: str) -> bool:
    return kind == "string" and schema.get("format") == "date-time"


def _in_order_of(example: Any, fields: list[Field]) -> list[Field]:
    """Sort the fields as in the example, which has the order of real responses."""
    first = example[0] if isinstance(example, list) else example or {}
    order = list(first)
    return sorted(
        fields, key=lambda each: order.index(each.name) if each.name in order else len(order)
    )


def _slugs(response: Mapping[str, Any]) -> list[str]:
    examples = response["content"][MEDIA_TYPE]["examples"].values()
    slugs = [each["value"]["type"].partition("#")[2] for each in examples]
    return list(dict.fromkeys(slugs))
