"""What CHANGELOG.md says to callers of the API. The rest of it is for operators."""

import re
from pathlib import Path

_FILE = Path(__file__).parents[2] / "CHANGELOG.md"
_MARK = "**API:** "  # an entry for callers begins with it
_RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!https:)[^)]*\)")


def changes_for_callers() -> str:
    """Return the entries for callers, in Markdown: a heading for each version, of the third level.

    The file is part of the package.
    """
    return callers_part_of(_FILE.read_text("utf-8"))


def callers_part_of(changelog: str) -> str:
    """Return the versions, kinds and entries of a changelog that callers should read.

    A link to a file of the repository becomes its text, because the page cannot lead there.
    """
    versions = []
    for version in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        title, _, body = version.partition("\n")
        kinds = [_kind(each) for each in re.split(r"^### ", body, flags=re.MULTILINE)[1:]]
        if any(kinds):
            versions.append("\n\n".join([f"### {title}", *filter(None, kinds)]))
    return "\n\n".join(versions)


def _kind(text: str) -> str:
    """Return the kind of change, such as *Added*, with its entries for callers; or nothing."""
    title, _, body = text.partition("\n")
    entries = re.split(r"^- ", body, flags=re.MULTILINE)[1:]
    marked = [each.removeprefix(_MARK).strip() for each in entries if each.startswith(_MARK)]
    if not marked:
        return ""
    listed = "\n".join(f"- {each}" for each in marked)
    unlinked = _RELATIVE_LINK.sub(r"\1", listed)
    return f"**{title}**\n\n{unlinked}"
