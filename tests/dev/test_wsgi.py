"""The docs page of `make run`, which may offer a development token."""

import re
import subprocess
import sys

import jwt
import pytest

from app.dev.keys import development_keys
from tests.conftest import environment
from tests.running_server import ROOT, clean_environment

SHOW_PAGE = """
import sys
from app.dev.wsgi import app

headers = {"Host": sys.argv[1], **dict.fromkeys(sys.argv[2:], "x")}
page = app.test_client().get("/docs", headers=headers)
print(page.headers["Cache-Control"], page.headers.get("ETag"), page.text)
"""


@pytest.fixture
def shown(settings):
    """Return a function that renders the page with the given environment variables."""

    def shown(host_name="localhost:8000", *headers, **variables):
        return subprocess.check_output(
            [sys.executable, "-c", SHOW_PAGE, host_name, *headers],
            cwd=ROOT,
            env=clean_environment() | environment(settings) | variables,
            text=True,
        )

    return shown


@pytest.mark.parametrize(
    ("host", "is_offered"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False)],  # noqa: S104  nothing listens on it
)
def test_a_token_is_offered_only_if_the_service_listens_on_loopback(
    shown, tmp_path, host, is_offered
):
    keys = development_keys(tmp_path)
    page = shown(HOST=host, JWT_PUBLIC_KEY_FILE=str(keys.public_key_file))
    assert ("development-token" in page) is is_offered
    assert ('value="eyJhbGci' in page) is is_offered


@pytest.mark.parametrize(
    ("host_name", "is_offered"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("localhost", True),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("[", False),
    ],
)
def test_a_foreign_host_name_gets_no_token(shown, tmp_path, host_name, is_offered):
    keys = development_keys(tmp_path)
    page = shown(host_name, HOST="127.0.0.1", JWT_PUBLIC_KEY_FILE=str(keys.public_key_file))
    assert ("development-token" in page) is is_offered


def test_no_cache_may_keep_a_page_with_a_token(shown, tmp_path):
    keys = development_keys(tmp_path)
    page = shown(HOST="127.0.0.1", JWT_PUBLIC_KEY_FILE=str(keys.public_key_file))
    assert "no-store None" in page


def test_no_token_is_offered_if_the_keys_belong_to_another_issuer(shown, tmp_path, issuer):
    (tmp_path / "public.pem").write_bytes(issuer.pem("EdDSA"))
    (tmp_path / "private.pem").write_text("somebody else's")
    assert "development" not in shown()
    assert "development" not in shown(JWT_PUBLIC_KEY_FILE=str(tmp_path / "public.pem"))


def test_the_token_has_the_claims_that_the_service_reads(shown, tmp_path):
    keys = development_keys(tmp_path)
    page = shown(
        JWT_PUBLIC_KEY_FILE=str(keys.public_key_file),
        JWT_UNIT_CLAIM="https://example.com/unit",
        JWT_ROLE_CLAIM="/realm_access/roles",
        JWT_MANAGER_ROLES="owner",
    )
    (token,) = re.findall('id="development-token" readonly value="(.*?)"', page)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["https://example.com/unit"] == "unit_demo"
    assert claims["realm_access"] == {"roles": "owner"}


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"],
)
def test_no_token_is_offered_through_a_proxy(shown, tmp_path, header):
    """A tunnel may rewrite the Host."""
    keys = development_keys(tmp_path)
    given = {"HOST": "127.0.0.1", "JWT_PUBLIC_KEY_FILE": str(keys.public_key_file)}
    assert "development-token" in shown("localhost:8000", "X-Other", **given)
    assert "development-token" not in shown("localhost:8000", header, **given)
