"""The settings, from environment variables and files that they name. Nothing else reads either."""

import base64
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from socket import AI_PASSIVE, getaddrinfo
from typing import Any, Self, cast
from urllib.parse import urlsplit

import environs
from marshmallow import ValidationError
from marshmallow.validate import ContainsOnly, Length, Range

from app.credentials.restrictions import MAX_SCOPES, is_scope
from app.database.connection import is_connection_uri, unknown_parameters
from app.identity.claim_paths import ClaimPath, ClaimPaths
from app.identity.keys import InvalidKeys, read_key_file

# Asymmetric signatures only: a service that can check a token must not be able to make one.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "Ed25519", "Ed448",
)  # fmt: skip
DEFAULT_ALGORITHMS = ["RS256", "ES256", "EdDSA"]
WORKER_CLASSES = {  # each value of WORKER_CLASS, with its class for gunicorn
    "fastpath": "app.server.fast_worker.FastWorker",
    "gthread": "app.server.worker.Worker",
}
LEAK_REPORTS = ("off", "record", "end")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
# Each secret variable, with the one that may name a file with its value instead: others may see the
# environment of a process, for example in what its supervisor reports.
SECRET_FILES = {
    "DATABASE_URL": "DATABASE_URL_FILE",
    "DIGEST_KEY": "DIGEST_KEY_FILE",
    "RATELIMIT_STORAGE_URL": "RATELIMIT_STORAGE_URL_FILE",
}

_DIGEST_KEY_MIN_BYTES = 32
_SECRET_MAX_BYTES = 16 * 1024
_NOT_EMPTY = Length(min=1, error="Must not be empty.")

_PUBLIC_URL = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?"
)

_QUOTES = "\"'`"
_NEEDS_TLS = (
    "Must be an https URL: over http, anybody on the way can put their own keys in place of the "
    "issuer's, and sign tokens. Set JWT_JWKS_ALLOW_HTTP=true if that is impossible in your network."
)


class SettingsError(Exception):
    """Some settings are missing or invalid. The message names each and says what is wrong."""

    def __init__(self, problems: dict[str, list[str]]) -> None:
        lines = [f"{name}: {' '.join(what)}" for name, what in sorted(problems.items())]
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSettings:
    """The settings that work on credentials needs. Most commands read only these."""

    database_url: str = field(repr=False)
    digest_keys: tuple[bytes, ...] = field(repr=False)
    bcrypt_rounds: int
    max_credentials_per_unit: int
    max_secret_days: int | None
    scopes: list[str]
    default_scopes: list[str] | None  # None: new credentials are unrestricted

    @classmethod
    def from_environment(cls) -> Self:
        """Read the variables. Raises one SettingsError for all that are missing or invalid."""
        env = _environment()
        settings = cls(**_domain_values(env))
        _raise_problems(env, _scope_problems(settings))
        return settings


# The variables of these settings. DIGEST_KEY may be a list, so its field has another name.
CREDENTIAL_VARIABLES = frozenset(
    "DIGEST_KEY" if each.name == "digest_keys" else each.name.upper()
    for each in fields(CredentialSettings)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CredentialSettings):
    """All settings of the service. docs/configuration.md explains each."""

    jwt_keys: str | Path  # a JWKS URL, or a file
    jwt_issuer: str
    jwt_audience: str
    jwt_algorithms: tuple[str, ...]
    jwt_claims: ClaimPaths
    jwt_manager_roles: frozenset[str]
    host: str
    port: int
    web_concurrency: int
    threads: int
    worker_class: str  # one of WORKER_CLASSES
    keep_alive_seconds: int
    verify_failure_limit: int
    issue_limit: int
    change_limit: int
    leak_reports: str  # one of LEAK_REPORTS
    trusted_proxies: int
    public_url: str | None  # without a slash at its end
    ratelimit_storage_url: str = field(repr=False)
    log_level: str

    @property
    def bind(self) -> str:
        """The address to listen on, as in a URL: with an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def from_environment(cls) -> Self:
        """Read the variables. Raises one SettingsError for all that are missing or invalid."""
        env = _environment()
        jwks_url = env.text("JWT_JWKS_URL", None, validate=_check_http_url)
        key_file = env.text("JWT_PUBLIC_KEY_FILE", None)
        claims = ClaimPaths(
            unit=env.claim("JWT_UNIT_CLAIM", "unit_id"),
            units=env.claim("JWT_UNITS_CLAIM", "unit_ids"),
            role=env.claim("JWT_ROLE_CLAIM", None),
        )
        manager_roles = env.list("JWT_MANAGER_ROLES", None, subcast=str.strip, validate=_check_each)
        settings = cls(
            **_domain_values(env),
            # exactly one of them: checked below
            jwt_keys=(jwks_url or "") if key_file is None else Path(key_file),
            jwt_issuer=env.text("JWT_ISSUER", validate=_NOT_EMPTY),
            jwt_audience=env.text("JWT_AUDIENCE", validate=_NOT_EMPTY),
            jwt_algorithms=tuple(
                env.list(
                    "JWT_ALGORITHMS",
                    DEFAULT_ALGORITHMS,
                    subcast=str.strip,
                    validate=[_NOT_EMPTY, ContainsOnly(ALGORITHMS)],
                )
                or ()
            ),
            jwt_claims=claims,
            jwt_manager_roles=frozenset(manager_roles or ()),
            host=env.text("HOST", "127.0.0.1", validate=[_NOT_EMPTY, _check_host]),
            port=env.int("PORT", 8000, validate=Range(1, 65535)),
            web_concurrency=env.int(
                "WEB_CONCURRENCY", os.cpu_count() or 1, validate=Range(1, 1024)
            ),
            threads=env.int("THREADS", 4, validate=Range(1, 1024)),
            worker_class=env.text("WORKER_CLASS", "fastpath", validate=_check_worker_class),
            keep_alive_seconds=env.int("KEEP_ALIVE_SECONDS", 75, validate=Range(0, 3600)),
            verify_failure_limit=env.int("VERIFY_FAILURE_LIMIT", 60, validate=Range(0, 1_000_000)),
            issue_limit=env.int("ISSUE_LIMIT", 60, validate=Range(0, 1_000_000)),
            change_limit=env.int("CHANGE_LIMIT", 300, validate=Range(0, 1_000_000)),
            leak_reports=env.text("LEAK_REPORTS", "off", validate=_check_leak_reports),
            trusted_proxies=env.int("TRUSTED_PROXIES", 0, validate=Range(0, 100)),
            public_url=env.public_url("PUBLIC_URL", None),
            ratelimit_storage_url=_secret(
                env, "RATELIMIT_STORAGE_URL", _parse_storage_url, default="memory://"
            ),
            log_level=env.log_level_name("LOG_LEVEL", "info"),
        )
        sources = ("JWT_JWKS_URL", "JWT_PUBLIC_KEY_FILE")
        problems = _key_problems(
            [name for name in sources if env.str(name, None) is not None],
            settings,
            allow_http=env.bool("JWT_JWKS_ALLOW_HTTP", False),
        )
        if (env.str("JWT_ROLE_CLAIM", None) is None) != (
            env.str("JWT_MANAGER_ROLES", None) is None
        ):
            problems["JWT_ROLE_CLAIM, JWT_MANAGER_ROLES"] = ["Set both of them, or neither."]
        problems |= _claim_problems(claims) | _scope_problems(settings)
        _raise_problems(env, problems)
        return settings


@cache
def process_settings() -> Settings:
    """Read the environment once for the life of the process. Raises SettingsError.

    gunicorn reads its configuration again on SIGHUP. A setting that has become invalid since, such
    as the key file, must not end a running service.
    """
    return Settings.from_environment()


def database_url_from_environment() -> str:
    """Read DATABASE_URL, the only variable that a migration needs. Raises SettingsError."""
    env = _environment()
    url: str = _secret(env, "DATABASE_URL", _parse_database_url)
    _raise_problems(env, {})
    return url


def _environment() -> environs.Env:
    env = environs.Env(eager=False)  # collects problems until `seal` is called
    env.add_parser("secret", _parse_secret)
    env.add_parser("secret_file", _parse_secret_file)
    env.add_parser("text", _parse_text)
    env.add_parser("claim", _parse_claim)
    env.add_parser("scopes", _parse_scopes)
    env.add_parser("log_level_name", _parse_log_level)
    env.add_parser("public_url", _parse_public_url)
    return env


def _domain_values(env: environs.Env) -> dict[str, Any]:
    return {
        "database_url": _secret(env, "DATABASE_URL", _parse_database_url),
        "digest_keys": _secret(env, "DIGEST_KEY", _parse_digest_keys),
        "bcrypt_rounds": env.int("BCRYPT_ROUNDS", 10, validate=Range(10, 16)),
        "max_credentials_per_unit": env.int(
            "MAX_CREDENTIALS_PER_UNIT", 1000, validate=Range(1, 1_000_000)
        ),
        "max_secret_days": env.int("MAX_SECRET_DAYS", None, validate=_check_days),
        "scopes": env.scopes("SCOPES", None) or [],
        "default_scopes": env.scopes("DEFAULT_SCOPES", None),
    }


def _secret(env: environs.Env, name: str, parse: Callable[[str], Any], default: Any = ...) -> Any:
    """Read the variable, or the file that its other variable names."""
    file = SECRET_FILES[name]
    if env.str(file, None) is None:
        return env.secret(name, default, parse=parse)
    rival = name if env.str(name, None) is not None else None
    return env.secret_file(file, rival=rival, parse=parse)


def _parse_secret(text: str, *, parse: Callable[[str], Any]) -> Any:
    return parse(text)


def _parse_secret_file(path: str, *, rival: str | None, parse: Callable[[str], Any]) -> Any:
    """Parse the content of the file, without the newline at its end."""
    if rival is not None:
        raise ValidationError(f"Must not be set together with {rival}.")
    try:
        with Path(path).open("rb") as file:
            content = file.read(_SECRET_MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise ValidationError(f"Cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ValidationError("The file must be UTF-8 text.") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValidationError("The file is empty.")
    if "\0" in text or len(content) > _SECRET_MAX_BYTES:
        raise ValidationError(
            f"The file must be at most {_SECRET_MAX_BYTES} bytes, and contain no NUL."
        )
    return parse(text)


def _raise_problems(env: environs.Env, more: dict[str, list[str]]) -> None:
    try:
        env.seal()
    except environs.EnvValidationError as error:
        found = cast("dict[str, list[str]]", error.error_messages)
        raise SettingsError(found | more) from None
    if more:
        raise SettingsError(more)


def _key_problems(
    given: list[str], settings: Settings, *, allow_http: bool | None
) -> dict[str, list[str]]:
    if len(given) != 1:
        problem = "Only one of them may be set." if given else "One of them must be set."
        return {"JWT_JWKS_URL, JWT_PUBLIC_KEY_FILE": [problem]}
    keys = settings.jwt_keys
    if isinstance(keys, str):
        return {} if allow_http or _is_private(keys) else {"JWT_JWKS_URL": [_NEEDS_TLS]}
    try:
        read_key_file(keys, settings.jwt_algorithms or DEFAULT_ALGORITHMS)
    except OSError as error:
        return {"JWT_PUBLIC_KEY_FILE": [f"Cannot be read: {error.strerror}."]}
    except InvalidKeys as error:
        return {"JWT_PUBLIC_KEY_FILE": [f"The file {error}."]}
    return {}


def _claim_problems(claims: ClaimPaths) -> dict[str, list[str]]:
    """Require different claims, or somebody who may only assign units could appoint managers."""
    named = {
        "JWT_UNIT_CLAIM": claims.unit,
        "JWT_UNITS_CLAIM": claims.units,
        "JWT_ROLE_CLAIM": claims.role,
    }
    given = [(name, claim) for name, claim in named.items() if claim is not None]
    return {
        f"{name}, {other_name}": ["Must be different claims, and neither inside the other."]
        for (name, claim), (other_name, other) in combinations(given, 2)
        if claim.overlaps(other)
    }


def _scope_problems(settings: CredentialSettings) -> dict[str, list[str]]:
    if set(settings.default_scopes or ()) <= set(settings.scopes):
        return {}
    return {"DEFAULT_SCOPES": ["Must be some of SCOPES."]}


def _parse_database_url(url: str) -> str:
    _parse_text(url)
    if is_connection_uri(url):
        return url
    unknown = unknown_parameters(url)
    if unknown:
        raise ValidationError(
            f"Has parameters that libpq does not know, so remove them: {', '.join(unknown)}."
        )
    raise ValidationError("Must be a libpq connection URI (postgresql://…).")


def _check_each(texts: list[str] | None) -> None:
    if texts is not None:
        _NOT_EMPTY(texts)
        for text in texts:
            _parse_text(text, _NOT_EMPTY)


def _check_days(days: int | None) -> None:
    if days is not None:
        Range(1, 3650)(days)


def _check_http_url(url: str | None) -> None:
    if url is not None and not _is_url(url, "http", "https"):
        raise ValidationError("Must be an http or https URL.")


def _parse_storage_url(url: str) -> str:
    _parse_text(url)
    if url != "memory://" and not _is_url(url, "redis", "rediss"):
        raise ValidationError("Must be memory:// or a redis:// URL.")
    return url


def _is_private(url: str) -> bool:
    """Tell whether nobody else can read or change what is sent from the URL."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname in (None, "localhost"):
        return True
    try:
        return ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _is_url(text: str, *schemes: str) -> bool:
    """Tell whether the text is a URL with one of the schemes and a server."""
    try:
        parts = urlsplit(text)
        has_server = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False  # an invalid host or port
    return parts.scheme in schemes and has_server and not re.search(r"\s", text)


def _check_host(host: str) -> None:
    try:
        getaddrinfo(host, None, flags=AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ValidationError("Must be an address of this machine.") from None


def _check_leak_reports(what: str) -> None:
    if what not in LEAK_REPORTS:
        raise ValidationError(f"Must be one of: {', '.join(LEAK_REPORTS)}.")


def _check_worker_class(name: str) -> None:
    if name not in WORKER_CLASSES:
        raise ValidationError(f"Must be one of: {', '.join(WORKER_CLASSES)}.")


def _parse_text(
    text: str | None,
    validate: Callable[[Any], object] | Sequence[Callable[[Any], object]] = (),
) -> str | None:
    """Return the text. It must not have what a file or a shell leaves around a value by mistake."""
    if text is None:
        return None
    if text.strip().strip(_QUOTES) != text or not text.isprintable():
        raise ValidationError(
            "Must not begin or end with white space or a quote, or contain control characters."
        )
    for check in [validate] if callable(validate) else validate:
        check(text)
    return text


def _parse_claim(text: str | None) -> ClaimPath | None:
    if text is None:
        return None
    _parse_text(text, _NOT_EMPTY)
    try:
        return ClaimPath.parse(text)
    except ValueError:
        raise ValidationError(
            "Must be the name of a claim, or a JSON pointer such as /realm_access/roles, "
            "and not one of JWT's registered claims."
        ) from None


def _parse_scopes(text: str | None) -> list[str] | None:
    if text is None:
        return None
    words = [each.strip() for each in text.split(",")]
    if not all(map(is_scope, words)) or not len(set(words)) == len(words) <= MAX_SCOPES:
        raise ValidationError(
            f"Must be at most {MAX_SCOPES} different words, separated by commas. Each has 1-32 "
            "characters: a small letter, then also digits, '.', '_' and '-'."
        )
    return sorted(words)


def _parse_public_url(url: str | None) -> str | None:
    """Return the URL without a slash at its end. It stands in shell commands, as it is."""
    if url is None:
        return None
    if not _PUBLIC_URL.fullmatch(url) or not _is_url(url, "http", "https"):
        raise ValidationError(
            "Must be an http or https URL without a query, with nothing but letters, digits and "
            "the characters . _ ~ - / after the host."
        )
    return url.rstrip("/")


def _parse_log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValidationError(f"Must be one of: {', '.join(LOG_LEVELS)}.")
    return text.lower()


def _parse_digest_keys(text: str) -> tuple[bytes, ...]:
    return tuple(_parse_digest_key(each) for each in text.split(","))


def _parse_digest_key(text: str) -> bytes:
    try:
        # `openssl rand -base64` wraps long lines
        key = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise ValidationError("Must be base64.") from None
    if len(key) < _DIGEST_KEY_MIN_BYTES:
        raise ValidationError(f"Must be at least {_DIGEST_KEY_MIN_BYTES} bytes.")
    return key
