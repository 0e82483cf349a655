"""The content of the docs pages, made once from the OpenAPI document and the guide."""

import json
import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from apispec import APISpec
from markupsafe import Markup

from app.api.http.problems import PROBLEM_TYPES
from app.api.openapi.document import POLICY
from app.docs import markdown
from app.docs.reference import Field, Operation, Reference, read_reference
from app.docs.samples import LANGUAGES, ORIGIN, sample, templates


class Content:
    """The guide and the reference, as Markdown and as HTML.

    Each part is made on first use, because the document is complete only once the application is.
    """

    def __init__(self, spec: APISpec) -> None:
        self._spec = spec

    @cached_property
    def reference(self) -> Reference:
        return read_reference(self._spec.to_dict())

    @cached_property
    def _guide(self) -> str:
        return templates.get_template("guide.md").render(
            origin=ORIGIN,
            sample=lambda operation_id: _samples(self.reference.operation(operation_id)),
            response=lambda operation_id: _response(self.reference.operation(operation_id)),
            receiver=_receiver,
            policy=POLICY.strip(),
        )

    @cached_property
    def text(self) -> bytes:
        """The whole page as Markdown, in UTF-8."""
        text = templates.get_template("docs.md").render(
            origin=ORIGIN,
            guide=self._guide,
            reference=self.reference,
            problem_types=PROBLEM_TYPES,
            response=_response,
            fields_of=_markdown_list,
            samples=_samples,
        )
        # captions are for the HTML page only
        return re.sub(r"^(```\w+) .*$", r"\1", text, flags=re.MULTILINE).encode()

    @cached_property
    def guide_html(self) -> Markup:
        return markdown.html_of(self._guide)

    @cached_property
    def sections(self) -> list[tuple[int, str, str]]:
        """The level, the anchor and the title of each section of the guide."""
        return markdown.headings_of(self._guide)

    @cached_property
    def samples_html(self) -> dict[str, Markup]:
        """The samples of each operation, by its ID."""
        return {each.id: markdown.html_of(_samples(each)) for each in self.reference.operations}

    @cached_property
    def responses_html(self) -> dict[str, Markup]:
        """The example of each operation's response, by its ID."""
        return {
            each.id: markdown.html_of(_fence("json Response", _response(each)))
            for each in self.reference.operations
            if each.response_example is not None
        }


def _samples(operation: Operation) -> str:
    return "\n\n".join(
        _fence(f"{each.code} {markdown.SAMPLE}", sample(operation, each)) for each in LANGUAGES
    )


def _receiver(language: str, name: str) -> str:
    return _fence(language, templates.get_template(f"receivers/{name}").render())


def indented_json(value: Any) -> str:
    """Return a value as indented JSON, for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _response(operation: Operation) -> str:
    return indented_json(operation.response_example)


def _fence(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def _markdown_list(fields: Iterable[Field], indent: str = "") -> str:
    """Return fields as a Markdown list; the members of a field are a list below it."""
    lines = []
    for each in fields:
        required = ", required" if each.required else ""
        lines.append(f"{indent}- `{each.name}` ({each.type}{required}): {each.description}")
        if each.fields:
            lines.append(_markdown_list(each.fields, f"{indent}  "))
    return "\n".join(lines)
