"""The content of the pages, made once from the OpenAPI document, guide.md and the changelog."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from apispec import APISpec
from markupsafe import Markup

from app.api.http import problems
from app.api.http.problems import MEDIA_TYPE, PROBLEM_TYPES, Problem
from app.api.openapi.document import POLICY
from app.docs import markdown
from app.docs.changelog import changes_for_callers
from app.docs.origin import ORIGIN
from app.docs.reference import Field, Operation, Reference, Section, read_reference
from app.docs.samples import LANGUAGES, sample, templates
from app.docs.search import search_index


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the documentation that has an address of its own as Markdown."""

    name: str
    title: str
    summary: str
    text: str

    @property
    def page(self) -> bytes:
        """The part as a page of its own, in UTF-8."""
        return f"# {self.title}\n{self.body}\n".encode()

    @property
    def body(self) -> str:
        """What is below the title, for a page below `/docs/`: its links lead there from it."""
        title, _, body = self.text.partition("\n")
        level = len(title) - len(title.lstrip("#"))
        body = re.sub(rf"^#{{{level - 1}}}(?=#)", "", body, flags=re.MULTILINE)
        body = re.sub(r"\]\((?=(?:docs|openapi\.json|llms\.txt)\b)", "](../", body)
        return body.replace("](#", "](../docs#")


class Content:
    """The guide, the reference, the errors and the changelog, as Markdown and as HTML.

    Each part is made on first use, because the document is complete only once the application is.
    """

    def __init__(self, spec: APISpec) -> None:
        self._spec = spec

    @cached_property
    def _document(self) -> dict[str, Any]:
        return self._spec.to_dict()

    @cached_property
    def reference(self) -> Reference:
        return read_reference(self._document)

    @cached_property
    def _guide(self) -> str:
        return templates.get_template("guide.md").render(
            origin=ORIGIN,
            sample=lambda operation_id: _samples(self.reference.operation(operation_id)),
            response=lambda operation_id: _response(self.reference.operation(operation_id)),
            problem=self.problem_examples.__getitem__,
            receiver=_receiver,
            policy=POLICY.strip(),
        )

    @cached_property
    def _guide_parts(self) -> list[Part]:
        chapters = re.split(r"^(?=## )", self._guide, flags=re.MULTILINE)
        return [_guide_part(each) for each in chapters if each]

    @cached_property
    def _operation_parts(self) -> dict[str, Part]:
        template = templates.get_template("operation.md")
        return {
            each.id: Part(
                each.id,
                each.summary,
                f"`{each.method} {each.path}`",
                _without_captions(
                    template.render(
                        operation=each, response=_response, fields_of=_fields, samples=_samples
                    )
                ),
            )
            for each in self.reference.operations
        }

    @cached_property
    def _errors_part(self) -> Part:
        text = templates.get_template("errors.md").render(
            problem_types=PROBLEM_TYPES, examples=self.problem_examples
        )
        return Part("errors", "Errors", "Every type of problem: cause, remedy, and retry.", text)

    @cached_property
    def _changelog_part(self) -> Part:
        text = templates.get_template("changelog.md").render(
            deprecated=list(self.reference.deprecated()), changes=changes_for_callers()
        )
        return Part("changelog", "Changelog", "What is deprecated, and what has changed.", text)

    @cached_property
    def parts(self) -> dict[str, bytes]:
        """The pages of the parts, by their names."""
        parts = [
            *self._guide_parts,
            *self._operation_parts.values(),
            self._errors_part,
            self._changelog_part,
        ]
        return {each.name: each.page for each in parts}

    @cached_property
    def text(self) -> bytes:
        """The whole documentation as Markdown, in UTF-8."""
        return self._render("docs.md", guide=_without_captions(self._guide))

    @cached_property
    def index(self) -> bytes:
        """What the documentation consists of, for language models (llmstxt.org)."""
        return self._render("llms.txt", guide=self._guide_parts)

    def _render(self, template: str, **values: Any) -> bytes:
        text = templates.get_template(template).render(
            origin=ORIGIN,
            reference=self.reference,
            operations=self._operation_parts,
            errors=self._errors_part,
            changelog=self._changelog_part,
            **values,
        )
        return text.encode()

    @cached_property
    def search_index(self) -> bytes:
        """What the search finds, in JSON."""
        return search_index(self.sections, self.reference, PROBLEM_TYPES)

    @cached_property
    def guide_html(self) -> Markup:
        return markdown.guide_html_of(self._guide)

    @cached_property
    def sections(self) -> list[tuple[int, str, str]]:
        """The level, the anchor and the title of each section of the guide."""
        return markdown.headings_of(self._guide)

    @cached_property
    def changelog_html(self) -> Markup:
        return markdown.html_of(self._changelog_part.body)

    @cached_property
    def versions(self) -> list[tuple[int, str, str]]:
        """The level, the anchor and the title of each section of the changelog."""
        return markdown.headings_of(self._changelog_part.body)

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

    @cached_property
    def problem_examples(self) -> dict[str, str]:
        """An example of each type of problem, by its slug: as the document has it, if it does."""
        found: dict[str, dict[str, Any]] = {}
        constants = (each for each in vars(problems).values() if isinstance(each, Problem))
        for each in (*_problems_in(self._document), *(each.document() for each in constants)):
            found.setdefault(each["type"], each)
        return {
            each.slug: indented_json(found[each.uri]) for each in PROBLEM_TYPES if each.uri in found
        }

    @cached_property
    def problem_examples_html(self) -> dict[str, Markup]:
        return {
            slug: markdown.html_of(_fence("json Response", example))
            for slug, example in self.problem_examples.items()
        }


def _problems_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every example of a problem document in a part of the OpenAPI document."""
    if isinstance(value, dict):
        for each in value.get(MEDIA_TYPE, {}).get("examples", {}).values():
            yield each["value"]
        for each in value.values():
            yield from _problems_in(each)


def _guide_part(text: str) -> Part:
    (_, name, title), *sections = markdown.headings_of(text)
    return Part(name, title, "; ".join(title for _, _, title in sections), _without_captions(text))


def _without_captions(text: str) -> str:
    """Remove the captions of code, which are for the HTML page only."""
    return re.sub(r"^(```\w+) .*$", r"\1", text, flags=re.MULTILINE)


def _samples(operation: Operation) -> str:
    return "\n\n".join(
        _fence(f"{each.code} {markdown.SAMPLE}", sample(operation, each)) for each in LANGUAGES
    )


def _receiver(language: str, name: str) -> str:
    code = templates.get_template(f"receivers/{name}").render()
    return _fence(f"{language} {markdown.SAMPLE}", code)


def indented_json(value: Any) -> str:
    """Return a value as indented JSON, for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _response(operation: Operation) -> str:
    return indented_json(operation.response_example)


def _fence(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def _fields(section: Section) -> str:
    return _markdown_list(section.fields, marks_required=section.marks_required)


def _markdown_list(fields: Iterable[Field], indent: str = "", *, marks_required: bool) -> str:
    """Return fields as a Markdown list; the members of a field are a list below it."""
    lines = []
    for each in fields:
        notes = [each.type]
        notes += ["required"] if marks_required and each.required else []
        notes += ["deprecated"] if each.deprecated else []
        lines.append(f"{indent}- `{each.name}` ({', '.join(notes)}): {each.description}")
        if each.fields:
            lines.append(_markdown_list(each.fields, f"{indent}  ", marks_required=marks_required))
    return "\n".join(lines)
