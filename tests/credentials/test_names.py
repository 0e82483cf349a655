import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.credentials.errors import InvalidName
from app.credentials.model import parse_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CRM", "CRM"),
        ("  CRM backend\n", "CRM backend"),
        ("\u00a0\u3000x\u2003", "x"),
        ("x" * 50, "x" * 50),
        (" " + "x" * 50 + " ", "x" * 50),
        ("\N{GRINNING FACE}" * 50, "\N{GRINNING FACE}" * 50),
        ("Zoë's \u202fAPI <b>'; --", "Zoë's \u202fAPI <b>'; --"),
        (
            "a\u00a0\u2029\u202f\u2065\u206a\u2070\ue000b",
            "a\u00a0\u2029\u202f\u2065\u206a\u2070\ue000b",
        ),
    ],
)
def test_a_name_loses_its_surrounding_white_space(text, name):
    assert parse_name(text) == name


@pytest.mark.parametrize("text", ["", " ", "\t\n", "x" * 51, "\N{GRINNING FACE}" * 51])
def test_a_name_has_1_to_50_characters(text):
    with pytest.raises(InvalidName, match="1-50 characters"):
        parse_name(text)


@pytest.mark.parametrize("character", ["\x00", "\x07", "\n", "\x1b", "\x7f", "\x80", "\x9f"])
def test_a_name_with_a_control_character_is_rejected(character):
    with pytest.raises(InvalidName, match="control"):
        parse_name(f"a{character}b")


@pytest.mark.parametrize(
    "character", [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
)
def test_a_name_with_a_bidirectional_override_is_rejected(character):
    with pytest.raises(InvalidName, match="bidirectional"):
        parse_name(f"a{character}b")


@pytest.mark.parametrize("character", [chr(0xD800), chr(0xDFFF)])
def test_a_name_with_a_lone_surrogate_is_rejected(character):
    with pytest.raises(InvalidName, match="surrogate"):
        parse_name(f"a{character}b")


@given(st.text(max_size=60))
def test_every_text_is_either_rejected_or_becomes_a_clean_name(text):
    try:
        name = parse_name(text)
    except InvalidName:
        return
    assert 1 <= len(name) <= 50
    assert name == name.strip()
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    assert parse_name(name) == name
