import os
from base64 import b64encode

import pytest

from app.settings import (
    CredentialSettings,
    Settings,
    SettingsError,
    database_url_from_environment,
)
from tests.helpers import claims_named

KEY = b64encode(b"k" * 32).decode()


@pytest.fixture
def environment(monkeypatch, issuer, tmp_path):
    """A complete environment, which a test can change."""
    public_key = tmp_path / "public.pem"
    public_key.write_bytes(issuer.pem("EdDSA"))
    for name in os.environ:
        if name not in ("PATH", "HOME", "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:s3cret@db1:5432,db2:5432/credentials")
    monkeypatch.setenv("JWT_PUBLIC_KEY_FILE", str(public_key))
    monkeypatch.setenv("JWT_ISSUER", "https://issuer.example")
    monkeypatch.setenv("JWT_AUDIENCE", "leadvibe-credentials")
    monkeypatch.setenv("DIGEST_KEY", KEY)
    return monkeypatch


def problems():
    with pytest.raises(SettingsError) as error:
        Settings.from_environment()
    return str(error.value)


def test_a_variable_that_is_not_set_has_its_default(environment):
    settings = Settings.from_environment()
    assert settings.jwt_algorithms == ("RS256", "ES256", "EdDSA")
    assert (settings.bcrypt_rounds, settings.threads, settings.log_level) == (10, 4, "info")
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.web_concurrency == os.cpu_count()
    assert settings.digest_keys == (b"k" * 32,)
    assert settings.verify_failure_limit == 60
    assert settings.worker_class == "fastpath"
    assert settings.ratelimit_storage_url == "memory://"
    assert settings.public_url is None


@pytest.mark.parametrize(
    ("host", "bind"),
    [("127.0.0.1", "127.0.0.1:8000"), ("localhost", "localhost:8000"), ("::1", "[::1]:8000")],
)
def test_gunicorn_listens_on_host_and_port(environment, host, bind):
    environment.setenv("HOST", host)
    assert Settings.from_environment().bind == bind


@pytest.mark.parametrize("end", ["", "/"])
def test_the_public_url_has_no_slash_at_its_end(environment, end):
    environment.setenv("PUBLIC_URL", f"https://example.com/a/b{end}")
    assert Settings.from_environment().public_url == "https://example.com/a/b"


def test_all_missing_variables_are_named_together(environment):
    for name in ("DATABASE_URL", "JWT_PUBLIC_KEY_FILE", "JWT_ISSUER", "JWT_AUDIENCE", "DIGEST_KEY"):
        environment.delenv(name)
    lines = problems().splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "DATABASE_URL",
        "DIGEST_KEY",
        "JWT_AUDIENCE",
        "JWT_ISSUER",
        "JWT_JWKS_URL, JWT_PUBLIC_KEY_FILE",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://db/credentials"),
        ("DATABASE_URL", "host=db dbname=credentials"),
        ("DATABASE_URL", "postgresql://db/credentials?s3cret=1"),
        ("DATABASE_URL", "postgresql://db:s3cret/credentials"),
        ("JWT_PUBLIC_KEY_FILE", "/nonexistent"),
        ("JWT_PUBLIC_KEY_FILE", "/etc"),
        ("JWT_PUBLIC_KEY_FILE", "/etc/passwd"),
        ("JWT_ISSUER", ""),
        ("JWT_AUDIENCE", ""),
        ("JWT_ALGORITHMS", ""),
        ("JWT_ALGORITHMS", "none"),
        ("JWT_ALGORITHMS", "HS256"),
        ("JWT_ALGORITHMS", "RS256,HS256"),
        ("DIGEST_KEY", ""),
        ("DIGEST_KEY", "s3cret, no base64"),
        ("DIGEST_KEY", b64encode(b"s3cret").decode()),
        ("BCRYPT_ROUNDS", "9"),
        ("BCRYPT_ROUNDS", "17"),
        ("BCRYPT_ROUNDS", "ten"),
        ("HOST", ""),
        ("HOST", "foo bar"),
        ("HOST", "256.1.1.1"),
        ("VERIFY_FAILURE_LIMIT", "-1"),
        ("VERIFY_FAILURE_LIMIT", "x"),
        ("RATELIMIT_STORAGE_URL", ""),
        ("RATELIMIT_STORAGE_URL", "memcached://s3cret"),
        ("RATELIMIT_STORAGE_URL", "redis://s3cret:port/0"),
        ("RATELIMIT_STORAGE_URL", "redis://"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "8000.5"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "many"),
        ("THREADS", "0"),
        ("THREADS", ""),
        ("WORKER_CLASS", "gevent"),
        ("LOG_LEVEL", "loud"),
        ("PUBLIC_URL", ""),
        ("PUBLIC_URL", "credentials.example.com"),
        ("PUBLIC_URL", "ftp://credentials.example.com"),
        ("PUBLIC_URL", "https://ada:s3cret@credentials.example.com"),
        ("PUBLIC_URL", "https://credentials.example.com/?s3cret"),
        ("PUBLIC_URL", "https://credentials.example.com/$(s3cret)"),
        ("PUBLIC_URL", "https://credentials.example.com:99999"),
    ],
)
def test_an_invalid_value_is_named_but_not_quoted(environment, name, value):
    environment.setenv(name, value)
    (line,) = problems().splitlines()
    assert line.startswith(f"{name}: ")
    assert "s3cret" not in line


def test_all_invalid_values_are_named_together(environment):
    for name in ("PORT", "THREADS", "BCRYPT_ROUNDS", "LOG_LEVEL"):
        environment.setenv(name, "x")
    assert len(problems().splitlines()) == 4


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://h/jwks",
        "jwks",
        "http://",
        "http://[",
        "http://h:x/",
        "http://h/a b",
    ],
)
def test_a_jwks_url_that_is_not_http_or_https_is_rejected(environment, url):
    environment.delenv("JWT_PUBLIC_KEY_FILE")
    environment.setenv("JWT_JWKS_URL", url)
    assert problems() == "JWT_JWKS_URL: Must be an http or https URL."


TEXTS = [
    "DATABASE_URL", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE",
    "JWT_UNIT_CLAIM", "JWT_UNITS_CLAIM", "JWT_ROLE_CLAIM", "JWT_MANAGER_ROLES", "HOST",
    "WORKER_CLASS", "RATELIMIT_STORAGE_URL",
]  # fmt: skip
VALID = {
    "DATABASE_URL": "postgresql://db/credentials",
    "JWT_JWKS_URL": "https://issuer.example/jwks.json",
    "JWT_ISSUER": "https://issuer.example",
    "HOST": "127.0.0.1",
    "WORKER_CLASS": "gthread",
    "RATELIMIT_STORAGE_URL": "redis://cache/0",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\r"), ("", "\n"), ("", "\r\n"), ("", " "), (" ", ""), ("\t", ""), ("\ufeff", ""),
        ("", "\u200b"), ("", "\u00a0"), ('"', '"'), ("'", "'"), ('"', ""), ("", "'"), ("`", "`"),
    ],
    ids=ascii,
)  # fmt: skip
def test_a_text_has_nothing_around_it(environment, issuer, tmp_path, name, before, after):
    environment.setenv("JWT_ROLE_CLAIM", "roles")
    environment.setenv("JWT_MANAGER_ROLES", "manager, owner")
    value = VALID.get(name, os.environ.get(name, "text"))
    if name == "JWT_JWKS_URL":
        environment.delenv("JWT_PUBLIC_KEY_FILE")
    environment.setenv(name, value)
    Settings.from_environment()
    environment.setenv(name, f"{before}{value}{after}")
    if name == "JWT_MANAGER_ROLES" and not f"{before}{after}".strip():
        assert Settings.from_environment().jwt_manager_roles == {"manager", "owner"}
        return
    expected = "Must not begin or end with white space or a quote, or contain control characters."
    assert problems() == f"{name}: {expected}"


@pytest.mark.parametrize("name", ["PORT", "THREADS", "ISSUE_LIMIT", "BCRYPT_ROUNDS", "LOG_LEVEL"])
@pytest.mark.parametrize("around", ["{}\r", " {}", '"{}"'])
def test_other_values_are_read_or_refused_with_something_around_them(environment, name, around):
    environment.setenv(name, around.format("info" if name == "LOG_LEVEL" else "11"))
    if name == "LOG_LEVEL" or '"' in around:
        assert problems().startswith(f"{name}: ")
    else:
        assert getattr(Settings.from_environment(), name.lower()) == 11


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("pgbouncer=true", "pgbouncer"),
        ("schema=public", "schema"),
        ("sslmode=require&pgbouncer=true&connection_limit=1", "pgbouncer, connection_limit"),
        ("schema", "schema"),
        ("prepareThreshold=", "prepareThreshold"),
    ],
)
def test_a_parameter_of_another_client_is_named(environment, query, named):
    environment.setenv("DATABASE_URL", f"postgresql://app:s3cret@db/credentials?{query}")
    expected = f"Has parameters that libpq does not know, so remove them: {named}."
    assert problems() == f"DATABASE_URL: {expected}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:pass?word=x@db:port/credentials",
        "postgresql://app:1234?secret@db/credentials?s3cret=1",
        "postgresql://db/credentials?s3cret=1",
        "mysql://db/credentials?charset=utf8",
    ],
)
def test_what_may_be_a_password_is_not_named(environment, url):
    environment.setenv("DATABASE_URL", url)
    expected = "Must be a libpq connection URI (postgresql://…)."
    assert problems() == f"DATABASE_URL: {expected}"


@pytest.mark.parametrize("url", ["http://localhost/x", "http://127.0.0.1:8080/", "http://[::1]/"])
def test_keys_may_come_over_http_from_this_machine(environment, url):
    environment.delenv("JWT_PUBLIC_KEY_FILE")
    environment.setenv("JWT_JWKS_URL", url)
    assert Settings.from_environment().jwt_keys == url


@pytest.mark.parametrize(
    "url",
    [
        "http://keycloak:8080/x",
        "http://10.0.0.5/",
        "HTTP://id.example.com/",
        "http://127.0.0.1.example.com/",
        "http://localhost@id.example.com/",
        "http://[::ffff:10.0.0.1]/",
    ],
)
def test_keys_come_over_http_from_elsewhere_only_if_that_is_allowed(environment, url):
    environment.delenv("JWT_PUBLIC_KEY_FILE")
    environment.setenv("JWT_JWKS_URL", url)
    assert problems().startswith("JWT_JWKS_URL: Must be an https URL: ")
    environment.setenv("JWT_JWKS_ALLOW_HTTP", "false")
    assert problems().startswith("JWT_JWKS_URL: Must be an https URL: ")
    environment.setenv("JWT_JWKS_ALLOW_HTTP", "true")
    assert Settings.from_environment().jwt_keys == url
    environment.setenv("JWT_JWKS_ALLOW_HTTP", "perhaps")
    assert problems().startswith("JWT_JWKS_ALLOW_HTTP: ")


def test_a_url_and_a_file_for_keys_are_rejected_together(environment):
    environment.setenv("JWT_JWKS_URL", "https://issuer.example/jwks.json")
    assert "Only one" in problems()


def test_a_key_file_must_match_the_allowed_algorithms(environment):
    environment.setenv("JWT_ALGORITHMS", "RS256, ES256")
    assert problems().startswith("JWT_PUBLIC_KEY_FILE: ")


def test_settings_do_not_show_their_secrets(environment):
    shown = repr(Settings.from_environment())
    assert "s3cret" not in shown
    assert "kkkk" not in shown


@pytest.mark.parametrize("level", ["INFO", "Warning", "debug"])
def test_a_log_level_may_be_in_upper_case(environment, level):
    environment.setenv("LOG_LEVEL", level)
    assert Settings.from_environment().log_level == level.lower()


def test_a_digest_key_may_contain_line_breaks(environment):
    environment.setenv("DIGEST_KEY", f"{KEY[:20]}\n{KEY[20:]}\n")
    assert Settings.from_environment().digest_keys == (b"k" * 32,)


def test_a_migration_only_needs_the_database_url(environment):
    for name in ("JWT_PUBLIC_KEY_FILE", "JWT_ISSUER", "JWT_AUDIENCE", "DIGEST_KEY"):
        environment.delenv(name)
    assert database_url_from_environment().startswith("postgresql://")


def test_a_migration_without_the_database_url_fails(environment):
    environment.delenv("DATABASE_URL")
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        database_url_from_environment()


def test_several_digest_keys_are_separated_by_commas(environment):
    other = b64encode(b"o" * 40).decode()
    environment.setenv("DIGEST_KEY", f"{KEY}, {other}")
    assert Settings.from_environment().digest_keys == (b"k" * 32, b"o" * 40)


@pytest.mark.parametrize("value", [f"{KEY},", f",{KEY}", f"{KEY},s3cret", f"{KEY};{KEY}"])
def test_each_of_several_digest_keys_must_be_valid(environment, value):
    environment.setenv("DIGEST_KEY", value)
    assert problems().startswith("DIGEST_KEY: ")


def test_the_limits_have_the_contracts_defaults(environment):
    settings = Settings.from_environment()
    assert (settings.issue_limit, settings.change_limit) == (60, 300)
    assert settings.leak_reports == "off"
    assert settings.max_credentials_per_unit == 1000
    assert settings.trusted_proxies == 0
    assert settings.keep_alive_seconds == 75


@pytest.mark.parametrize("value", ["", "END", "true", "record,end"])
def test_leak_reports_are_off_record_or_end(environment, value):
    environment.setenv("LEAK_REPORTS", value)
    assert problems() == "LEAK_REPORTS: Must be one of: off, record, end."


@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "1000001"])
@pytest.mark.parametrize(
    "name",
    [
        "ISSUE_LIMIT",
        "CHANGE_LIMIT",
        "KEEP_ALIVE_SECONDS",
        "MAX_CREDENTIALS_PER_UNIT",
        "TRUSTED_PROXIES",
    ],
)
def test_a_limit_must_be_a_sensible_number(environment, name, value):
    environment.setenv(name, value)
    assert problems().startswith(f"{name}: ")


def test_roles_are_read_from_both_variables(environment):
    assert Settings.from_environment().jwt_manager_roles == frozenset()
    environment.setenv("JWT_ROLE_CLAIM", "roles")
    environment.setenv("JWT_MANAGER_ROLES", "manager, owner")
    settings = Settings.from_environment()
    assert str(settings.jwt_claims.role) == "roles"
    assert settings.jwt_manager_roles == {"manager", "owner"}


def test_claims_have_their_default_or_configured_names(environment):
    assert Settings.from_environment().jwt_claims == claims_named()
    environment.setenv("JWT_UNIT_CLAIM", "https://example.com/unit")
    environment.setenv("JWT_UNITS_CLAIM", "/leadvibe/units")
    environment.setenv("JWT_ROLE_CLAIM", "/realm_access/roles")
    environment.setenv("JWT_MANAGER_ROLES", "manager")
    assert Settings.from_environment().jwt_claims == claims_named(
        "https://example.com/unit", "/leadvibe/units", "/realm_access/roles"
    )


@pytest.mark.parametrize("name", ["JWT_UNIT_CLAIM", "JWT_UNITS_CLAIM", "JWT_ROLE_CLAIM"])
@pytest.mark.parametrize("value", ["", "/", "/a//b", "/a~", " a", "sub", "/iss", "/aud/x"])
def test_the_name_of_a_claim_must_be_a_name_or_a_pointer(environment, name, value):
    environment.setenv("JWT_MANAGER_ROLES", "manager")
    environment.setenv("JWT_ROLE_CLAIM", "roles")
    environment.setenv(name, value)
    (line,) = problems().splitlines()
    assert line.startswith(f"{name}: Must ")


@pytest.mark.parametrize(
    ("unit", "units", "role", "named"),
    [
        ("unit_ids", "unit_ids", "roles", "JWT_UNIT_CLAIM, JWT_UNITS_CLAIM"),
        ("a", "/a", "roles", "JWT_UNIT_CLAIM, JWT_UNITS_CLAIM"),
        ("/a/b", "/a", "roles", "JWT_UNIT_CLAIM, JWT_UNITS_CLAIM"),
        ("roles", "unit_ids", "roles", "JWT_UNIT_CLAIM, JWT_ROLE_CLAIM"),
        ("unit_id", "groups", "groups", "JWT_UNITS_CLAIM, JWT_ROLE_CLAIM"),
    ],
)
def test_a_claim_cannot_have_two_meanings(environment, unit, units, role, named):
    environment.setenv("JWT_UNIT_CLAIM", unit)
    environment.setenv("JWT_UNITS_CLAIM", units)
    environment.setenv("JWT_ROLE_CLAIM", role)
    environment.setenv("JWT_MANAGER_ROLES", "manager")
    assert problems() == f"{named}: Must be different claims, and neither inside the other."


@pytest.mark.parametrize(("name", "value"), [("JWT_ROLE_CLAIM", "x"), ("JWT_MANAGER_ROLES", "x")])
def test_one_of_the_two_role_variables_alone_is_invalid(environment, name, value):
    environment.setenv(name, value)
    assert problems() == "JWT_ROLE_CLAIM, JWT_MANAGER_ROLES: Set both of them, or neither."


@pytest.mark.parametrize(
    ("claim", "roles", "named"),
    [
        ("", "x", "JWT_ROLE_CLAIM"),
        ("x", "", "JWT_MANAGER_ROLES"),
        ("x", "a,,b", "JWT_MANAGER_ROLES"),
    ],
)
def test_an_empty_role_is_invalid(environment, claim, roles, named):
    environment.setenv("JWT_ROLE_CLAIM", claim)
    environment.setenv("JWT_MANAGER_ROLES", roles)
    assert problems() == f"{named}: Must not be empty."


def test_the_longest_life_of_a_secret_is_not_limited_by_default(environment):
    assert Settings.from_environment().max_secret_days is None
    environment.setenv("MAX_SECRET_DAYS", "90")
    assert Settings.from_environment().max_secret_days == 90


@pytest.mark.parametrize("value", ["0", "-1", "3651", "x", "", "1.5"])
def test_an_invalid_longest_life_is_rejected(environment, value):
    environment.setenv("MAX_SECRET_DAYS", value)
    assert problems().startswith("MAX_SECRET_DAYS: ")


def test_there_are_no_scopes_by_default(environment):
    settings = Settings.from_environment()
    assert (settings.scopes, settings.default_scopes) == ([], None)


def test_scopes_are_words_with_commas_between_them(environment):
    environment.setenv("SCOPES", "leads.read, ingest,x_1-2," + "a" * 32)
    environment.setenv("DEFAULT_SCOPES", "leads.read,ingest")
    for settings in (Settings.from_environment(), CredentialSettings.from_environment()):
        assert settings.scopes == ["a" * 32, "ingest", "leads.read", "x_1-2"]
        assert settings.default_scopes == ["ingest", "leads.read"]


@pytest.mark.parametrize(
    "value",
    [
        "", ",", "ingest,", "Ingest", "1x", ".x", "in gest", "ingest events", "a" * 33, "*", "é",
        "ingest,ingest", ",".join(f"x{number}" for number in range(17)), '"ingest"',
        "ingest/events",
    ],
)  # fmt: skip
def test_invalid_scopes_are_rejected(environment, value):
    environment.setenv("SCOPES", value)
    assert problems().startswith("SCOPES: Must be at most 16 different words")


@pytest.mark.parametrize("scopes", [None, "events"])
def test_the_default_scopes_are_some_of_the_scopes(environment, scopes):
    if scopes is not None:
        environment.setenv("SCOPES", scopes)
    environment.setenv("DEFAULT_SCOPES", "ingest")
    for read in (Settings.from_environment, CredentialSettings.from_environment):
        with pytest.raises(SettingsError, match="DEFAULT_SCOPES: Must be some of SCOPES"):
            read()


SECRETS = {
    "DATABASE_URL": "postgresql://app:s3cret@db/credentials",
    "DIGEST_KEY": f"{KEY},{KEY}",
    "RATELIMIT_STORAGE_URL": "rediss://:s3cret@cache/0",
}


@pytest.fixture
def from_file(environment, tmp_path):
    """Return a function that puts a secret into a file, and names it in the environment."""

    def from_file(name, content):
        file = tmp_path / name
        file.write_bytes(content)
        environment.delenv(name, raising=False)
        environment.setenv(f"{name}_FILE", str(file))
        return file

    return from_file


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_may_be_in_a_file(from_file, end):
    for name, value in SECRETS.items():
        from_file(name, f"{value}{end}".encode())
    settings = Settings.from_environment()
    assert settings.database_url == SECRETS["DATABASE_URL"]
    assert settings.digest_keys == (b"k" * 32,) * 2
    assert settings.ratelimit_storage_url == SECRETS["RATELIMIT_STORAGE_URL"]
    assert CredentialSettings.from_environment().database_url == SECRETS["DATABASE_URL"]
    assert database_url_from_environment() == SECRETS["DATABASE_URL"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_given_once(environment, from_file, name):
    from_file(name, SECRETS[name].encode())
    environment.setenv(name, SECRETS[name])
    assert problems() == f"{name}_FILE: Must not be set together with {name}."


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "The file is empty."),
        (b"\n", "The file is empty."),
        (b"\r\n", "The file is empty."),
        (b"s3cret\0", "The file must be at most 16384 bytes, and contain no NUL."),
        (b"s3cret" * 10_000, "The file must be at most 16384 bytes, and contain no NUL."),
        (b"s3cret\xff", "The file must be UTF-8 text."),
        ("s3cret".encode("utf-16"), "The file must be UTF-8 text."),
        (b"s3cret", "Must be "),
        (b"s3cret\ns3cret\n", "Must "),
    ],
)
def test_an_unusable_file_is_named_but_not_quoted(from_file, name, content, problem):
    from_file(name, content)
    (line,) = problems().splitlines()
    assert line.startswith(f"{name}_FILE: {problem}")
    assert "s3cret" not in line


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nonexistent", "No such file or directory"),
        ("/etc", "Is a directory"),
        ("", "Is a directory"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported(environment, name, path, reason):
    environment.delenv(name, raising=False)
    environment.setenv(f"{name}_FILE", path)
    assert problems() == f"{name}_FILE: Cannot be read: {reason}."


def test_a_file_without_permission_is_reported(from_file):
    from_file("DIGEST_KEY", KEY.encode()).chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read any file
    try:
        assert problems().splitlines()[0] == "DIGEST_KEY_FILE: Cannot be read: Permission denied."
    finally:
        os.seteuid(user)
