"""`credentials token check`: show what the service reads in a token, or why it refuses it."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

import click
from tabulate import tabulate

from app.cli.failures import Unavailable
from app.cli.output import print_fields
from app.identity.inspection import inspect
from app.identity.key_sources import FETCH_SECONDS, KeysUnavailable
from app.identity.tokens import Claims, InvalidToken
from app.services import Services
from app.settings import Settings
from app.times import format_time

_TIMES = ("exp", "nbf", "iat")
_PAUSE_SECONDS = 0.1


def check_token(token: str, settings: Settings, *, as_json: bool) -> None:
    """Print what the service reads in the token. Ends the command with 1 if it is refused."""
    services = Services.from_settings(settings)
    try:
        claims = _verify(token, services)
    except InvalidToken as reason:
        _print_refusal(str(reason), token, settings, as_json=as_json)
        raise click.exceptions.Exit(1) from None
    except KeysUnavailable:
        raise Unavailable("The issuer's keys cannot be fetched from JWT_JWKS_URL.") from None
    accepted = {
        "accepted": True,
        "subject": claims.subject,
        "unit_id": claims.unit_id,
        "unit_ids": sorted(claims.unit_ids),
        "roles": sorted(claims.roles),
        "may_change": services.may_change(claims),
        "expires_at": _unverified_fields(token)["exp"],
    }
    print_fields(accepted, as_json=as_json)
    if claims.unit_id is None:
        click.echo(_no_unit_message(claims), err=True)


def _no_unit_message(claims: Claims) -> str:
    if claims.unit_ids:
        return "The token has no active unit: the cookie activeOu must name one of its units."
    return "The token has no unit: the service answers 400."


def _verify(token: str, services: Services) -> Claims:
    """Verify as the service does, but wait for the first fetch of the keys."""
    deadline = monotonic() + FETCH_SECONDS
    with _warnings_shown():
        services.keys.open()
        try:
            while True:
                try:
                    return services.tokens.verify(token)
                except KeysUnavailable:
                    if monotonic() > deadline:
                        raise
                    sleep(_PAUSE_SECONDS)
        finally:
            services.keys.close()


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show the warnings that the service would log about its keys."""
    logger, handler = logging.getLogger("app.identity"), logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _print_refusal(reason: str, token: str, settings: Settings, *, as_json: bool) -> None:
    """Print the reason, and the token's fields beside those that the service requires."""
    fields = _unverified_fields(token)
    required = {
        "alg": list(settings.jwt_algorithms),
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
    }
    now = format_time(datetime.now(UTC))
    if as_json:
        record = {
            "accepted": False,
            "reason": reason,
            "token": fields,
            "service": required,
            "now": now,
        }
        print_fields(record, as_json=True)
        return
    click.echo(f"Error: The service refuses the token: {reason}.", err=True)
    if fields:
        beside = {name: json.dumps(value) for name, value in required.items()}
        beside["exp"] = f"now {now}"
        # as JSON, which escapes control characters: anybody may have written the token
        table = [[name, json.dumps(value), beside.get(name)] for name, value in fields.items()]
        headers = ["", "the token", "the service"]
        click.echo(f"\n{tabulate(table, headers, disable_numparse=True)}", err=True)


def _unverified_fields(token: str) -> dict[str, Any]:
    """Return the fields of the token that the service checks, without verifying them."""
    content = inspect(token)
    if content is None:
        return {}
    header = {name: content.header.get(name) for name in ("alg", "kid", "typ")}
    claims = {name: content.claims.get(name) for name in ("iss", "aud", "sub")}
    times = {
        name: _readable_time(content.claims[name]) for name in _TIMES if name in content.claims
    }
    return {**header, **claims, **times}


def _readable_time(value: Any) -> Any:
    """Return a NumericDate in the service's format; return any other value unchanged."""
    try:
        return format_time(datetime.fromtimestamp(value, UTC))
    except (TypeError, ValueError, OverflowError, OSError):
        return value
