"""Render Markdown as HTML, with an anchor on each heading and coloured code."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, String, _TokenType

from app.docs.origin import ORIGIN
from app.docs.samples import LANGUAGES

# After the opening fence of a code block comes its language, then its caption. This caption marks a
# sample that exists in several languages, one after the other.
SAMPLE = "sample"
_LANGUAGE_NAMES = {each.code: each.name for each in LANGUAGES}
_DEFAULT_CAPTIONS = _LANGUAGE_NAMES | {"sh": "Shell"}

_FIGURE = Markup(
    '<figure class="code"{sample}><figcaption>{caption}</figcaption>'
    "<pre><code>{code}</code></pre></figure>"
)
_SAMPLE_ATTRIBUTE = Markup(' data-sample="{}"')
_MAX_LINES_BESIDE = 22  # longer code stands below the text, over the whole width
_STEP = Markup('<div class="step"><div>{text}</div><div class="code-beside">{code}</div></div>')

# The CSS class of each kind of token.
_COLOURS = {
    Comment: "comment",
    String: "string",
    Keyword: "keyword",
    Number: "number",
    Name.Variable: "name",
    Name.Tag: "name",
}


def html_of(markdown: str) -> Markup:
    """Return Markdown (CommonMark, with tables) as HTML. Raw HTML in it is escaped."""
    return Markup(_markdown.render(markdown))  # noqa: S704  the renderer escapes


def guide_html_of(markdown: str) -> Markup:
    """Return Markdown as HTML, with each run of text beside the code that follows it."""
    html: list[str] = []
    text: list[Token] = []
    code: list[Token] = []

    def end_step() -> None:
        texts, codes = (Markup(_render(each)) for each in (text, code))  # noqa: S704  as above
        lines = max((each.content.count("\n") for each in code), default=0)
        is_beside = 0 < lines <= _MAX_LINES_BESIDE
        html.append(_STEP.format(text=texts, code=codes) if is_beside else texts + codes)
        text.clear()
        code.clear()

    for block in _blocks(_markdown.parse(markdown)):
        if block[0].type == "fence":
            code.extend(block)
            continue
        is_heading = block[0].type == "heading_open"
        if code or is_heading:
            end_step()
        text.extend(block)
        if is_heading:
            end_step()
    end_step()
    return Markup("").join(html)


def inline_html_of(markdown: str) -> Markup:
    """Return one paragraph of Markdown as HTML, without an element around it."""
    return Markup(_markdown.renderInline(markdown))  # noqa: S704  the renderer escapes


def headings_of(markdown: str) -> list[tuple[int, str, str]]:
    """Return the level, the anchor and the text of each heading."""
    return [
        (int(opening.tag.removeprefix("h")), str(opening.attrs["id"]), inline.content)
        for opening, inline in _headings(_markdown.parse(markdown))
    ]


def _render(tokens: Sequence[Token]) -> str:
    html: str = _markdown.renderer.render(tokens, _markdown.options, {})
    return html


def _blocks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Split the tokens into the blocks of the highest level: headings, paragraphs, tables …"""
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def _code_html(code: str, language: str, caption: str, choices: Sequence[str] = ()) -> Markup:
    """Return a code block as HTML. A sample is shown to readers who chose one of the languages."""
    return _FIGURE.format(
        sample=_SAMPLE_ATTRIBUTE.format(" ".join(choices)) if choices else "",
        caption=_LANGUAGE_NAMES[language] if choices else caption or _DEFAULT_CAPTIONS[language],
        code=_coloured(code.rstrip("\n"), language),
    )


def _coloured(code: str, language: str) -> Markup:
    tokens = get_lexer_by_name(language, stripnl=False, ensurenl=False).get_tokens(code)
    colours = ((_colour(kind), text) for kind, text in tokens)
    html = "".join(
        _span(colour, "".join(text for _, text in run))
        for colour, run in groupby(colours, key=lambda each: each[0])
    )
    # the page's script replaces the origin with the one in the reader's address bar
    return Markup(html.replace(ORIGIN, f"<span data-origin>{ORIGIN}</span>"))  # noqa: S704  escaped above


def _colour(kind: _TokenType) -> str | None:
    return next((_COLOURS[parent] for parent in kind.split() if parent in _COLOURS), None)


def _span(colour: str | None, text: str) -> Markup:
    return Markup('<span class="{}">{}</span>').format(colour, text) if colour else escape(text)


class _Renderer(RendererHTML):
    """Writes blocks of code as figures, and headings as links to themselves."""

    def fence(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        language, _space, caption = tokens[idx].info.partition(" ")
        return _code_html(
            tokens[idx].content, language, caption, tokens[idx].meta.get("choices", ())
        )

    def heading_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        opening = self.renderToken(tokens, idx, options, env)
        return f'{opening}<a href="#{tokens[idx].attrs["id"]}">'

    def heading_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return f"</a>{self.renderToken(tokens, idx, options, env)}"


def _name_headings(state: Any) -> None:
    """Give each heading an `id` made from its text."""
    for opening, inline in _headings(state.tokens):
        opening.attrs["id"] = re.sub(r"[^a-z0-9]+", "-", inline.content.lower()).strip("-")


def _choose_samples(state: Any) -> None:
    """Say which languages each sample is shown for. The first one stands in for missing ones."""
    for is_sample, run in groupby(state.tokens, key=_is_sample):
        if is_sample:
            samples = {_language(each): each for each in run}
            for language, token in samples.items():
                token.meta["choices"] = [language]
            first = next(iter(samples.values()))
            first.meta["choices"] += [code for code in _LANGUAGE_NAMES if code not in samples]


def _is_sample(token: Token) -> bool:
    return token.type == "fence" and token.info.endswith(f" {SAMPLE}")


def _language(fence: Token) -> str:
    return fence.info.partition(" ")[0]


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token]]:
    """Return each heading's opening, and the text in it."""
    pairs = pairwise(tokens)
    return ((opening, text) for opening, text in pairs if opening.type == "heading_open")


_markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
_markdown.core.ruler.push("name_headings", _name_headings)
_markdown.core.ruler.push("choose_samples", _choose_samples)
