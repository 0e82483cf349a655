"""Values and functions that several test modules use."""

import os
import re
import shutil
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin
from zlib import crc32

import pytest

from app.bulkheads import Bulkheads
from app.credentials import errors
from app.credentials.generator import BASE62, checksum, generate_client_secret, hint_of
from app.credentials.hashing import Hasher
from app.credentials.model import Caller
from app.identity.claim_paths import ClaimPath, ClaimPaths
from app.times import format_time
from tests.running_server import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from tests.conftest import Rows

DIGEST_KEY = b"a digest key of the tests, 32 B."

# The fields of a credential, in the contract's order.
VERIFIED_FIELDS = ["secret_id", "unit_id", "client_id", "name", "trust_upstream_consent"]
FIELDS = [*VERIFIED_FIELDS, "created_at"]
ISSUED_FIELDS = [*FIELDS[:3], "client_secret", *FIELDS[3:]]
DETAILED_FIELDS = [
    *FIELDS, "created_by", "updated_at", "last_used_at", "disabled_at", "last_refused",
    "scopes", "addresses", "secrets",
]  # fmt: skip


def caller(unit_id: str = "unit_demo", *, actor: str = "ada", request_id: str = "req") -> Caller:
    return Caller(
        actor=actor, unit_id=unit_id, request_id=request_id, via="api", address="192.0.2.1"
    )


def claims_named(
    unit: str = "unit_id", units: str = "unit_ids", role: str | None = None
) -> ClaimPaths:
    return ClaimPaths(
        unit=ClaimPath.parse(unit),
        units=ClaimPath.parse(units),
        role=None if role is None else ClaimPath.parse(role),
    )


def domain_errors(*, without: set[type[Exception]]) -> list[Exception]:
    """Return one error of each kind that the domain raises."""
    arguments = {
        errors.InvalidExpiry: ("Must be in the future",),
        errors.InvalidRestriction: ("scopes", "are not configured"),
        errors.VerificationRefused: ("unknown",),
        errors.ScopeMissing: ("ingest",),
        errors.CredentialInUse: (datetime.now(UTC),),
        errors.TooManyFailures: (1,),
        errors.TooManyIssues: (1,),
        errors.TooManyChanges: (1,),
        errors.TooManyReports: (1,),
    }
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type)
        and issubclass(each, Exception)
        and each is not errors.LimitExceeded
    ]
    keywords = {errors.HistoryLost: {"has_history": True}}
    return [
        kind(*arguments.get(kind, ()), **keywords.get(kind, {}))
        for kind in kinds
        if kind not in without
    ]


def hasher_with(*digest_keys: bytes) -> Hasher:
    return Hasher(10, digest_keys, Bulkheads.for_verifiers(1))


def guesses(client_secret: str) -> "Iterator[str]":
    """Yield other client secrets with the same hint, as anybody could who has read the database.

    CRC-32 is linear: the checksums of two texts give that of the text that has a part of each.
    """
    hint = reduce(
        lambda number, digit: number * 62 + BASE62.index(digit), hint_of(client_secret), 0
    )
    wanted = range(hint, 2**32, 62 ** len(hint_of(client_secret)))
    parts = ["".join(digits) for digits in product(BASE62, repeat=3)]
    while True:
        start = generate_client_secret()[: -6 - 6]  # without the two parts and the checksum
        firsts = {crc32(f"{start}{part}000".encode()): part for part in parts}
        neither = crc32(f"{start}000000".encode())
        for second in parts:
            other = crc32(f"{start}000{second}".encode()) ^ neither
            for first in filter(None, (firsts.get(each ^ other) for each in wanted)):
                body = start + first + second
                yield body + checksum(body)


def basic(client_id: str, client_secret: str) -> dict[str, str]:
    """Return the Authorization header of the pair."""
    pair = f"{client_id}:{client_secret}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode()}"}


def names(answer: "TestResponse") -> list[str]:
    """Return the names in a page of a list."""
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json]


def next_of(answer: "TestResponse") -> str | None:
    """Return the address of the next page, if there is one."""
    link = answer.headers.get("Link")
    if link is None:
        return None
    (reference,) = re.findall(r'^<([^>]*)>; rel="next"$', link)
    return urljoin(answer.request.path, reference)


def follow(client: "FlaskClient", path: str, expected: list[str]) -> "TestResponse":
    """Ask for the page until it has the names, and return the answer.

    A transaction of another test, on the same server, may delay the events for a moment.
    """
    answers: list[TestResponse] = []

    def is_there() -> bool:
        answers.append(client.get(path))
        return names(answers[-1]) == expected

    wait_until(is_there)
    return answers[-1]


def time_in(**duration: float) -> str:
    """Return the time that is this far ahead, in the API's format."""
    return format_time(datetime.now(UTC) + timedelta(**duration))


def typo_of(text: str, position: int = -1) -> str:
    """Return the text with a different character at the position."""
    characters = list(text)
    characters[position] = "1" if characters[position] == "0" else "0"
    return "".join(characters)


def is_live(rows: "Rows", client_secret: str) -> bool:
    """Tell from the stored rows whether the client secret is live."""
    digest = hasher_with(DIGEST_KEY).digest(client_secret)
    query = """
        SELECT 1 FROM client_secrets JOIN credentials USING (secret_id)
        WHERE digest = %(digest)s AND (expires_at IS NULL OR expires_at > clock_timestamp())
          AND disabled_at IS NULL
    """
    return bool(rows(query, digest=digest))


def service_role() -> str:
    """Return the statements that make the service's role, without psql's own commands."""
    script = (ROOT / "deploy" / "postgres" / "service-role.sql").read_text()
    make = """
        DO $$ BEGIN CREATE ROLE credentials_service LOGIN;
        EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    """
    return make + script[script.index("REVOKE") :]


def known_settings() -> set[str]:
    """Return the names of the variables that the service reads."""
    return set(re.findall(r'"([A-Z][A-Z_]+)"', (ROOT / "app" / "settings.py").read_text()))


def graceful_seconds() -> int:
    """Return how long gunicorn lets requests finish when it stops."""
    configuration = (ROOT / "gunicorn.conf.py").read_text()
    (seconds,) = re.findall(r"^graceful_timeout = (\d+)", configuration, re.MULTILINE)
    return int(seconds)


def require(program: str | Path, *, install: str) -> None:
    """Skip the test if the program or file is missing. With CI set, fail instead."""
    found = program.exists() if isinstance(program, Path) else shutil.which(program)
    if not found:
        missing = f"{program} is not installed ({install})"
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
