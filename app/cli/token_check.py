"""`credentials token check`: what the service makes of a token, and why it refuses one."""

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
    """Print what the service reads in the token. Ends the command with 1 if it refuses it."""
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
        "expires_at": _said(token)["exp"],
    }
    print_fields(accepted, as_json=as_json)
    if claims.unit_id is None:
        click.echo(_no_unit(claims), err=True)


def _no_unit(claims: Claims) -> str:
    if claims.unit_ids:
        return "The token has no active unit: the cookie activeOu must name one of its units."
    return "The token has no unit: the service answers 400."


def _verify(token: str, services: Services) -> Claims:
    """Verify as the service does, but wait until the first fetch of the keys has ended."""
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
    """Show what the service would log about its keys."""
    logger, handler = logging.getLogger("app.identity"), logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _print_refusal(reason: str, token: str, settings: Settings, *, as_json: bool) -> None:
    """Print why, and what the token says beside what the service wants."""
    said = _said(token)
    wants = {
        "alg": list(settings.jwt_algorithms),
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
    }
    now = format_time(datetime.now(UTC))
    if as_json:
        record = {"accepted": False, "reason": reason, "token": said, "service": wants, "now": now}
        print_fields(record, as_json=True)
        return
    click.echo(f"Error: The service refuses the token: {reason}.", err=True)
    if said:
        beside = {name: json.dumps(value) for name, value in wants.items()} | {"exp": f"now {now}"}
        # as JSON, because whoever wrote the token may have put anything in it
        table = [[name, json.dumps(value), beside.get(name)] for name, value in said.items()]
        headers = ["", "the token", "the service"]
        click.echo(f"\n{tabulate(table, headers, disable_numparse=True)}", err=True)


def _said(token: str) -> dict[str, Any]:
    """Return what the token says that the service looks at, whoever wrote it."""
    content = inspect(token)
    if content is None:
        return {}
    header = {name: content.header.get(name) for name in ("alg", "kid", "typ")}
    claims = {name: content.claims.get(name) for name in ("iss", "aud", "sub")}
    times = {name: _time(content.claims[name]) for name in _TIMES if name in content.claims}
    return {**header, **claims, **times}


def _time(value: Any) -> Any:
    """Return a numeric date as people read it; anything else as it is."""
    try:
        return format_time(datetime.fromtimestamp(value, UTC))
    except (TypeError, ValueError, OverflowError, OSError):
        return value
