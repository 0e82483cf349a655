"""Upper and lower case, without the database: in the locale C it knows only those of ASCII."""

from collections import defaultdict
from functools import cache

_LAST_WITH_CASE = 0x1FFFF  # beyond it, Unicode has no letters with upper and lower case


def pattern_in_any_case(text: str) -> str:
    """Return a regular expression of Postgres that finds the text in any case.

    It lists the forms of each letter, so it needs no locale.
    """
    return "".join(map(_pattern, text))


def _pattern(character: str) -> str:
    forms = _forms().get(_key(character), character)
    if len(forms) > 1:
        return f"[{forms}]"
    return rf"\{character}" if character.isascii() and not character.isalnum() else character


@cache
def _forms() -> dict[str, str]:
    """Return all forms of each letter that has several."""
    forms: dict[str, str] = defaultdict(str)
    for character in map(chr, range(_LAST_WITH_CASE + 1)):
        if character.upper() != character or character.lower() != character:
            forms[_key(character)] += character
    return forms


def _key(character: str) -> str:
    """Return what all forms of a letter have in common, such as those of sigma."""
    upper = character.upper()
    return (upper if len(upper) == 1 else character).lower()[0]
