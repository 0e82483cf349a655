"""The repr of the domain's values, as a log or a traceback would show it."""

import pytest

from app.credentials.idempotency import IdempotentRequest
from app.credentials.model import (
    HashedSecret,
    StoredResponse,
    StoredSecret,
    VerifiedCredential,
)
from tests.helpers import caller

CREDENTIAL = VerifiedCredential("sec_x", "unit_demo", "lv_ci_x", "CRM", False)


@pytest.mark.parametrize(
    "value",
    [
        HashedSecret("s3cret", b"s3cret", "hint"),
        StoredSecret(CREDENTIAL, 1, "s3cret", b"s3cret", "4567", None, False, None, None, None),
        StoredResponse(b"key hash", b"s3cret", b"s3cret"),
        IdempotentRequest("s3cret", caller(), "issue", {"name": "CRM"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_repr_of_a_value_does_not_show_secrets(value):
    assert "s3cret" not in repr(value)
