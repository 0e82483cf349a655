"""Make small changes to a Python file, each of which a test should notice."""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from itertools import accumulate, pairwise


def _table(text: str) -> dict[bytes, bytes]:
    pairs = (pair.split(": ") for pair in text.split(", "))
    return {old.encode(): new.encode() for old, new in pairs}


_SWAPS = _table(
    "<: <=, <=: <, >: >=, >=: >, ==: !=, !=: ==, is: is not, is not: is, in: not in, not in: in, "
    "and: or, or: and, +: -, -: +, *: /, /: *, //: *, %: *, **: *, <<: >>, >>: <<, &: |, |: &, ^: |"
)
_OPERATOR = re.compile(
    rb"is not|not in|<<|>>|<=|>=|==|!=|//|\*\*|[-+*/%<>&|^]|\b(?:is|in|and|or)\b"
)

_SQL_SWAPS = _table(
    "AND: OR, OR: AND, IS: IS NOT, IS NOT: IS, NOT: , DESC: ASC, DISTINCT: , FOR UPDATE: , "
    "FOR NO KEY UPDATE: , FOR SHARE: , <: <=, <=: <, >: >=, >=: >, =: <>, <>: ="
)
_SQL = re.compile(rb"\b(?:SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|AND|OR|ORDER BY|IS)\b")
_SQL_OPERATOR = re.compile(
    rb"\b(?:AND|OR|IS NOT|IS|NOT|DESC|DISTINCT|FOR (?:NO KEY )?UPDATE|FOR SHARE)\b"
    rb"|(?<![-<>=!:])(?:<=|>=|<>|<|>|=)(?![<>=])"
)

_NUMBER = re.compile(rb"\d+")
_QUOTE = re.compile(rb"([A-Za-z]*)(\"\"\"|'''|\"|')")


@dataclass(frozen=True)
class Mutant:
    """A changed file: its text, the lines that differ, and all lines of the changed statement."""

    text: bytes
    line: int
    before: str
    after: str
    statement: range


@dataclass(frozen=True)
class _Edit:
    start: int
    end: int
    text: bytes


class _Source:
    """A file, with the positions of its nodes. Python counts columns in bytes."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._starts = [0, *accumulate(map(len, text.splitlines(keepends=True)))]

    def start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        assert node.end_lineno is not None  # noqa: S101  the parser always tells it
        assert node.end_col_offset is not None  # noqa: S101  as above
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def replace(self, node: ast.expr | ast.stmt | ast.keyword, text: str) -> _Edit:
        return _Edit(self.start(node), self.end(node), text.encode())

    def mutant(self, edit: _Edit, statement: range) -> Mutant:
        text = self.text[: edit.start] + edit.text + self.text[edit.end :]
        first = self.text.rfind(b"\n", 0, edit.start) + 1
        last = self.text.find(b"\n", edit.end)
        if last < 0:
            last = len(self.text)
        before, after = self.text[first:last], text[first : last + len(text) - len(self.text)]
        line = self.text.count(b"\n", 0, edit.start) + 1
        return Mutant(text, line, _one_line(before), _one_line(after), statement)


def mutants(text: bytes) -> Iterator[Mutant]:
    """Yield every mutant of the file from top to bottom, without duplicates."""
    source = _Source(text)
    tree = ast.parse(text)
    seen = {ast.dump(tree)}
    for node, statement in _nodes(tree, range(0)):
        for edit in _edits(node, source):
            mutant = source.mutant(edit, statement)
            try:
                with warnings.catch_warnings(action="ignore"):
                    meaning = ast.dump(ast.parse(mutant.text))
            except SyntaxError:
                continue
            if meaning not in seen:
                seen.add(meaning)
                yield mutant


def _nodes(node: ast.AST, statement: range) -> Iterator[tuple[ast.AST, range]]:
    """Yield each node with its statement's lines, without docstrings and annotations."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.stmt():
                lines = _lines(child)
            case _:
                lines = statement
        if child in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            continue
        yield child, lines
        if not isinstance(child, ast.JoinedStr):
            yield from _nodes(child, lines)


def _lines(statement: ast.stmt) -> range:
    """Return the statement's lines; for a compound statement, only those before its body."""
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    body = getattr(statement, "body", None)
    if body:
        return range(first, max(_lines(body[0]).start, statement.lineno + 1))
    return range(first, (statement.end_lineno or first) + 1)


@singledispatch
def _edits(_node: ast.AST, _source: _Source) -> Iterator[_Edit]:
    """Yield the changes to the node itself, without those to its children."""
    yield from ()


@_edits.register
def _(
    node: ast.Compare | ast.BoolOp | ast.BinOp | ast.AugAssign, source: _Source
) -> Iterator[_Edit]:
    match node:
        case ast.Compare():
            operands = [node.left, *node.comparators]
        case ast.BoolOp():
            operands = node.values
        case ast.BinOp():
            operands = [node.left, node.right]
        case ast.AugAssign():
            operands = [node.target, node.value]
    for left, right in pairwise(operands):
        found = _OPERATOR.search(source.text, source.end(left), source.start(right))
        if found:
            yield _Edit(*found.span(), _SWAPS[found[0]])


@_edits.register
def _(node: ast.UnaryOp, source: _Source) -> Iterator[_Edit]:
    sign = re.compile(rb"not\s*|-").match(source.text, source.start(node))
    if sign:
        yield _Edit(*sign.span(), b"")


@_edits.register
def _(node: ast.If | ast.IfExp, source: _Source) -> Iterator[_Edit]:
    yield source.replace(node.test, "True")
    yield source.replace(node.test, "False")


@_edits.register
def _(node: ast.While, source: _Source) -> Iterator[_Edit]:
    yield source.replace(node.test, "False")


@_edits.register
def _(node: ast.comprehension, source: _Source) -> Iterator[_Edit]:
    for condition in node.ifs:
        yield source.replace(condition, "True")
        yield source.replace(condition, "False")


@_edits.register
def _(node: ast.Constant, source: _Source) -> Iterator[_Edit]:
    match node.value:
        case bool():
            yield source.replace(node, str(not node.value))
        case int() | float():
            yield source.replace(node, repr(node.value + 1))
        case str() | bytes():
            yield from _string_edits(node, source)


@_edits.register
def _(node: ast.JoinedStr, source: _Source) -> Iterator[_Edit]:
    yield from _string_edits(node, source)


def _string_edits(node: ast.Constant | ast.JoinedStr, source: _Source) -> Iterator[_Edit]:
    """Change SQL's operators, the numbers in SQL or in a pattern, and the start of other text."""
    start, end = source.start(node), source.end(node)
    opening = _QUOTE.match(source.text, start)
    assert opening  # noqa: S101  the parser says so
    is_sql = _SQL.search(source.text, opening.end(), end)
    if is_sql:
        for found in _SQL_OPERATOR.finditer(source.text, opening.end(), end):
            yield _Edit(*found.span(), _SQL_SWAPS[found[0]])
    else:
        yield _Edit(opening.end(), opening.end(), b"x")
    if is_sql or b"r" in opening[1].lower():
        for found in _NUMBER.finditer(source.text, opening.end(), end):
            number = str(int(found[0]) + 1).zfill(len(found[0]))
            yield _Edit(*found.span(), number.encode())


@_edits.register
def _(node: ast.Return, source: _Source) -> Iterator[_Edit]:
    if node.value and not (isinstance(node.value, ast.Constant) and node.value.value is False):
        yield source.replace(node.value, "None")


@_edits.register
def _(node: ast.Expr | ast.Raise, source: _Source) -> Iterator[_Edit]:
    if isinstance(node, ast.Raise) or isinstance(node.value, ast.Call):
        yield source.replace(node, "pass")


@_edits.register
def _(node: ast.Break | ast.Continue, source: _Source) -> Iterator[_Edit]:
    yield source.replace(node, "continue" if isinstance(node, ast.Break) else "break")


@_edits.register
def _(node: ast.keyword, source: _Source) -> Iterator[_Edit]:
    if isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool):
        return  # without it, the default usually equals its opposite, which is a mutant already
    comma = re.compile(rb"\s*,\s*|").match(source.text, source.end(node))
    yield _Edit(source.start(node), comma.end() if comma else source.end(node), b"")


@_edits.register
def _(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, source: _Source
) -> Iterator[_Edit]:
    for decorator in node.decorator_list:
        yield _Edit(source.text.rfind(b"@", 0, source.start(decorator)), source.end(decorator), b"")


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())
