"""The docs pages, rendered. Importing it loads what renders them."""

from functools import cached_property
from typing import Any

from apispec import APISpec
from flask import render_template

from app.api.http.problems import PROBLEM_TYPES
from app.docs import assets, markdown
from app.docs.content import Content, indented_json
from app.docs.samples import LANGUAGES


class Pages:
    """The pages about an OpenAPI document. Each is made on first use."""

    def __init__(self, spec: APISpec) -> None:
        self._content = Content(spec)

    @cached_property
    def public(self) -> bytes:
        """The guide and the reference as HTML."""
        return self.with_token(None)

    @cached_property
    def errors(self) -> bytes:
        """Every type of problem as HTML."""
        return self._render("errors.html", root="../", problem_types=PROBLEM_TYPES)

    @cached_property
    def changelog(self) -> bytes:
        """What is deprecated and what has changed, as HTML."""
        return self._render("changelog.html", root="../")

    @property
    def text(self) -> bytes:
        """All of them as Markdown."""
        return self._content.text

    @property
    def index(self) -> bytes:
        """The list of the parts of the documentation, as Markdown."""
        return self._content.index

    @property
    def search_index(self) -> bytes:
        """What the search finds, as JSON."""
        return self._content.search_index

    def part(self, name: str) -> bytes | None:
        """Return a part of the documentation as Markdown, or None if there is no such part."""
        return self._content.parts.get(name)

    def with_token(self, token: str | None) -> bytes:
        """Return the guide and the reference as HTML, whose console has the token."""
        return self._render(
            "docs.html",
            root="",
            languages=LANGUAGES,
            html=markdown.html_of,
            indented_json=indented_json,
            token=token,
        )

    def _render(self, template: str, *, root: str, **values: Any) -> bytes:
        """Return the page. `root` leads from its address to that of the service."""
        return render_template(
            template,
            root=root,
            content=self._content,
            asset=assets.asset_name,
            mark=assets.mark(),
            inline=markdown.inline_html_of,
            **values,
        ).encode()
