import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.http.bodies import parse_json_object
from app.api.http.problems import HTTPProblem

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON))
def test_every_json_object_is_read_unchanged(document):
    assert parse_json_object(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"{", b'{"a":1}x', b"{'a':1}", b'{"a":}', b'{"a":1,}', b'{"a":01}', b"\xef\xbb\xbf{}",
        b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":1,"a":1}',
        b'{"b":{"a":1,"\\u0061":2}}', b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\n"}',
        b'{"a":' + b"9" * 5000 + b"}", b'{"a":' + b"[" * 8000, b'{"a":' * 3000,
        "{}".encode("utf-16"), b"\x00",
    ],
    ids=lambda body: ascii(body[:30]),
)  # fmt: skip
def test_invalid_json_is_rejected(body):
    with pytest.raises(HTTPProblem, match="not valid JSON"):
        parse_json_object(body)


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"x"', b"true", b'[{"name":"x"}]'])
def test_json_that_is_not_an_object_is_rejected(body):
    with pytest.raises(HTTPProblem, match="not a JSON object"):
        parse_json_object(body)


@given(st.binary(max_size=50))
def test_any_bytes_are_either_an_object_or_rejected(body):
    with contextlib.suppress(HTTPProblem):
        assert isinstance(parse_json_object(body), dict)
