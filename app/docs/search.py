"""What the search of the pages finds: headings, calls, fields and errors."""

from collections.abc import Iterable, Iterator

from app.api.http.problems import ProblemType
from app.docs.reference import Operation, Reference
from app.json_bytes import json_bytes

_PART_LEVEL = 3  # of headings; a chapter of the guide has level 2

# Kind, title, where it is, description, and the address relative to that of the service.
Entry = tuple[str, str, str, str, str]


def search_index(
    sections: Iterable[tuple[int, str, str]],
    reference: Reference,
    problem_types: Iterable[ProblemType],
) -> bytes:
    """Return all entries as JSON. search.js reads it."""
    entries = [*_headings(sections)]
    for group in reference.groups:
        entries += map(_call, group.operations)
    entries += (
        ("Error", each.slug, str(each.status), each.cause, f"docs/errors#{each.slug}")
        for each in problem_types
    )
    for operation in reference.operations:
        entries += _fields(operation)
    return json_bytes(entries)


def _headings(sections: Iterable[tuple[int, str, str]]) -> Iterator[Entry]:
    parent = ""
    for level, anchor, title in sections:
        is_part = level == _PART_LEVEL
        yield "Guide", title, parent if is_part else "", "", f"docs#{anchor}"
        parent = parent if is_part else title


def _call(operation: Operation) -> Entry:
    place = f"{operation.method} {operation.path}"
    return "Call", operation.summary, place, operation.description, f"docs#{operation.id}"


def _fields(operation: Operation) -> Iterator[Entry]:
    for each in operation.fields():
        path = each.anchor.split(".", 2)[2]  # after the operation and the part of the request
        yield "Field", path, operation.summary, each.description, f"docs#{each.anchor}"
