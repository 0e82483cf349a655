import math
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.credentials.generator import (
    BASE36,
    BASE62,
    CLIENT_ID_PATTERN,
    CLIENT_SECRET_PATTERN,
    HINT_PATTERN,
    SECRET_ID_PATTERN,
    checksum,
    generate_client_id,
    generate_client_secret,
    generate_secret_id,
    hint_of,
    is_client_id,
    is_client_secret,
)
from tests.helpers import typo_of

CHECKSUM_LENGTH = 6


@pytest.mark.parametrize(
    ("generate", "pattern"),
    [
        (generate_secret_id, r"sec_[0-9a-z]{20}"),
        (generate_client_id, r"lv_ci_[0-9a-z]{20}"),
        (generate_client_secret, r"lv_cs_[0-9A-Za-z]{43}[0-9A-Za-z]{6}"),
    ],
)
def test_a_generated_value_has_the_format_of_the_contract(generate, pattern):
    assert all(re.fullmatch(pattern, generate()) for _ in range(200))


@pytest.mark.parametrize(
    "generate", [generate_secret_id, generate_client_id, generate_client_secret]
)
def test_generated_values_are_all_different(generate):
    assert len({generate() for _ in range(2000)}) == 2000


@pytest.mark.parametrize(
    ("generate", "prefix"), [(generate_secret_id, "sec_"), (generate_client_id, "lv_ci_")]
)
def test_an_identifier_has_20_characters_and_at_least_96_random_bits(generate, prefix):
    random_part = generate().removeprefix(prefix)
    assert len(random_part) == 20
    assert len(random_part) * math.log2(len(BASE36)) >= 96


def test_a_client_secret_has_43_characters_and_at_least_256_random_bits():
    random_part = generate_client_secret().removeprefix("lv_cs_")[:-CHECKSUM_LENGTH]
    assert len(random_part) == 43
    assert len(random_part) * math.log2(len(BASE62)) >= 256


def test_a_client_secret_fits_into_bcrypt():
    assert len(generate_client_secret().encode()) <= 72


def test_a_client_secret_uses_the_whole_alphabet():
    assert set("".join(generate_client_secret()[6:49] for _ in range(500))) == set(BASE62)


def test_a_client_secret_ends_in_the_checksum_of_the_rest():
    secret = generate_client_secret()
    value = 0
    for digit in secret[-6:]:
        value = value * 62 + BASE62.index(digit)
    assert value == zlib.crc32(secret[:-6].encode())


def test_the_checksum_of_a_known_text_is_as_specified():
    # CRC-32 of "123456789" is 0xCBF43926, the check value of its specification
    assert checksum("123456789") == "3jZRME"


@given(st.text(st.sampled_from(BASE62), min_size=43, max_size=43), st.integers(0, 42))
def test_a_typo_changes_the_checksum(body, position):
    assert checksum(typo_of(body, position)) != checksum(body)


@pytest.mark.parametrize(
    ("generate", "pattern"),
    [
        (generate_secret_id, SECRET_ID_PATTERN),
        (generate_client_id, CLIENT_ID_PATTERN),
        (generate_client_secret, CLIENT_SECRET_PATTERN),
        (lambda: hint_of(generate_client_secret()), HINT_PATTERN),
    ],
)
def test_a_generated_value_has_its_documented_pattern_and_exact_length(generate, pattern):
    value = generate()
    assert re.fullmatch(pattern, value)
    assert not re.fullmatch(pattern, value[:-1])
    assert not re.fullmatch(pattern, value + "a")


def test_a_generated_client_id_and_client_secret_are_recognized():
    assert is_client_id(generate_client_id())
    assert is_client_secret(generate_client_secret())


@pytest.mark.parametrize("body", ["", "lv_cs_", "lv_cs_" + "a" * 42, "lv_cs_" + "a" * 44,
                                  "lv_ci_" + "a" * 43, "lv_cs_" + "a" * 42 + "-"])  # fmt: skip
def test_a_correct_checksum_does_not_make_another_format_a_client_secret(body):
    assert not is_client_secret(body + checksum(body))


def test_text_that_is_not_ascii_is_not_a_client_secret():
    assert not is_client_secret("lv_cs_" + "é" * 49)
