"""Read the blocks of code in /docs.md, which the page shows too."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from app.docs.origin import ORIGIN


def documentation(client: Any) -> str:
    """Return all of the documentation, whose samples use ORIGIN."""
    text: str = client.get("/docs.md", headers={"Host": urlsplit(ORIGIN).netloc}).text
    return text


def blocks(text: str, heading: str) -> list[tuple[str, str]]:
    """Return language and code of each block between this heading and the next."""
    _, _, section = text.partition(f"# {heading}\n")
    section = re.split(r"^#{2,4} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w+)[^\n]*\n(.*?)\n```$", section, re.DOTALL | re.MULTILINE)


def block(client: Any, heading: str, language: str, address: str, *, number: int = 0) -> str:
    """Return a block below the heading, with the server's address in place of the sample's."""
    found = blocks(documentation(client), heading)
    code = [code for each, code in found if each == language][number]
    return code.replace(ORIGIN, address)


def samples(client: Any, language: str) -> Iterator[tuple[str, str]]:
    """Yield the operation ID and the sample of every call, in one language."""
    document = client.get("/openapi.json").json
    text = documentation(client).partition("\n## All calls\n")[2]
    for path in document["paths"].values():
        for method, operation in path.items():
            if method != "parameters":
                found = dict(blocks(text, operation["summary"]))
                yield operation["operationId"], found[language]
