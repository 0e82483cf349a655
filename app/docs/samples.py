"""The same call in curl, Python, JavaScript and Go, made from the reference."""

import json
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.docs.origin import ORIGIN
from app.docs.reference import Operation


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the samples. `code` is the highlighter's name for it."""

    name: str
    code: str


LANGUAGES = (
    Language("curl", "sh"),
    Language("Python", "python"),
    Language("JavaScript", "javascript"),
    Language("Go", "go"),
)

# Templates of plain text and Markdown.
templates = Environment(
    loader=PackageLoader(__package__),
    autoescape=False,  # noqa: S701  the output is plain text; the HTML page escapes it
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def _python_literal(value: Any) -> str:
    """Return a JSON value as a Python literal, with double quotes."""
    if isinstance(value, dict):
        members = (f"{json.dumps(key)}: {_python_literal(each)}" for key, each in value.items())
        return f"{{{', '.join(members)}}}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


templates.filters["python_literal"] = _python_literal
templates.filters["json"] = partial(json.dumps, ensure_ascii=False)


def variables(operation: Operation) -> list[str]:
    """Return the names of the environment variables that the samples read."""
    of_scheme = {"bearerAuth": ["TOKEN"], "basicAuth": ["CLIENT_ID", "CLIENT_SECRET"], None: []}
    of_path = [each.name.upper() for each in operation.parameters_in("path")]
    return of_scheme[operation.scheme] + of_path


def sample(operation: Operation, language: Language) -> str:
    """Return a program that makes the call.

    It prints the response. After an error it prints the problem's `detail`, and fails.
    """
    return templates.get_template(f"samples/{language.name.lower()}.jinja").render(
        method=operation.method,
        origin=ORIGIN,
        path=re.split(r"\{(\w+)\}", operation.path),  # literal text and variable names alternate
        scheme=operation.scheme,
        variables=variables(operation),
        body=operation.body_example,
    )
