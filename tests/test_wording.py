"""All words that people read are kept in one file, where a reviewer sees them change."""

import ast
import os
import re
from inspect import cleandoc
from pathlib import Path
from textwrap import indent

import marshmallow

from app.api.http.input import invalid_member
from app.cli.commands import main
from tests.running_server import ROOT

WORDING = Path(__file__).with_name("wording.txt")
CHANGED = "The words that people read have changed. Review them, then run `make wording`."


def test_the_words_that_people_read_have_been_reviewed(client):
    text = wording(client.get("/openapi.json").json)
    if "UPDATE_WORDING" in os.environ:
        WORDING.write_text(text)
    assert text == WORDING.read_text(), CHANGED


def wording(document):
    sections = {
        "Problems": arguments("app/api", "Problem|invalid_input"),
        "Kinds of problems": arguments("app/api", "ProblemType"),
        "Problems of fields": details_of_fields(),
        "OpenAPI document": words_in(document),
        "Invalid names": arguments("app/credentials", "InvalidName"),
        "Command line": help_of(main, "credentials"),
        "Command line, errors and output": [
            *arguments("app/cli", r"click\.echo|self\.fail|_?print_\w+"),
            *(
                sentence
                for name in ("commands", "failures", "output", "terminal", "token_check")
                for sentence in sentences_in(f"app/cli/{name}.py")
            ),
        ],
        "Settings": sentences_in("app/settings.py"),
        "Settings, The file …": arguments("app/identity", "InvalidKeys"),
        "Refused tokens": arguments("app/identity", "InvalidToken|TokenExpired"),
        "Log": arguments("app", r"_logger\.\w+"),
    }
    return "\n".join(
        f"# {title}\n\n" + "".join(f"{line}\n" for line in sorted(set(lines)))
        for title, lines in sections.items()
    )


def details_of_fields(base=marshmallow.Schema):
    """Yield the `detail` of the problem document for an invalid value of each field."""
    for schema in base.__subclasses__():
        yield from details_of_fields(schema)
        if schema.__module__.startswith("app."):
            for name in schema().fields:
                yield invalid_member(schema(), name).detail


def words_in(node, path=""):
    """Yield each summary, description and title, except in the values of examples."""
    members = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in members:
        if name in ("summary", "description", "title") and isinstance(value, str):
            yield line(f"{path}.{name}".lstrip("."), value)
        elif isinstance(value, dict | list) and name not in ("example", "value"):
            yield from words_in(value, f"{path}.{name}")


def help_of(command, path):
    yield line(path, command.help)
    if command.epilog:
        yield line(f"{path}, at the end", command.epilog)
    for parameter in command.params:
        if getattr(parameter, "help", None):
            yield line(f"{path} {parameter.opts[0]}", parameter.help)
    for name, each in getattr(command, "commands", {}).items():
        yield from help_of(each, f"{path} {name}")


def line(path, text):
    return indent(f"{path}: {cleandoc(text)}", "    ").lstrip()


def arguments(where, called):
    """Yield the texts among the arguments of each call of a function with this name."""
    for path in sorted((ROOT / where).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.fullmatch(called, ast.unparse(node.func)):
                yield from filter(None, map(text_of, node.args))


def sentences_in(where):
    """Yield the texts that end like a sentence, except docstrings."""
    nodes = list(ast.walk(ast.parse((ROOT / where).read_text())))
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        text = text_of(node)
        if text and text.endswith((".", "?")) and node not in docstrings | parts:
            yield text


def text_of(node):
    """Return the text of a string, with the expressions of an f-string in braces, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or ast.unparse(part.value).join("{}") for part in node.values)
    return None
