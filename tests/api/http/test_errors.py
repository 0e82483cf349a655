"""Which problem document answers which error."""

import re

import pytest

from app.api.http import problems
from app.api.http.errors import problem_of
from app.api.http.problems import Problem
from app.credentials.errors import InvalidName
from tests.helpers import domain_errors
from tests.running_server import ROOT

TOLD_BY_FIELDS = {InvalidName}


@pytest.mark.parametrize(
    "error", domain_errors(without=TOLD_BY_FIELDS), ids=lambda error: type(error).__name__
)
def test_every_error_of_the_domain_has_a_problem(error):
    assert problem_of(error, request_id="x").status != 500


def test_every_problem_is_used():
    code = "\n".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    names = [name for name, each in vars(problems).items() if isinstance(each, Problem)]
    assert names
    assert [name for name in names if len(re.findall(rf"\b{name}\b", code)) < 2] == []
