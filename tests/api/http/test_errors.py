"""Which problem document answers which error."""

import pytest

from app.api.http.errors import problem_of
from app.credentials.errors import InvalidName
from tests.helpers import domain_errors

TOLD_BY_FIELDS = {InvalidName}


@pytest.mark.parametrize(
    "error", domain_errors(without=TOLD_BY_FIELDS), ids=lambda error: type(error).__name__
)
def test_every_error_of_the_domain_has_a_problem(error):
    assert problem_of(error, request_id="x").status != 500
