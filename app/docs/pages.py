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
        return _render("errors.html", root="../", problem_types=PROBLEM_TYPES)

    @property
    def text(self) -> bytes:
        """The guide and the reference as Markdown."""
        return self._content.text

    def with_token(self, token: str | None) -> bytes:
        """Return the guide and the reference as HTML, whose console has the token."""
        return _render(
            "docs.html",
            root="",
            content=self._content,
            languages=LANGUAGES,
            html=markdown.html_of,
            indented_json=indented_json,
            token=token,
        )


def _render(template: str, *, root: str, **values: Any) -> bytes:
    """Return the page. `root` leads from its address to that of the service."""
    return render_template(
        template,
        root=root,
        asset=assets.asset_name,
        inline=markdown.inline_html_of,
        **values,
    ).encode()
