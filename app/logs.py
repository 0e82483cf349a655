"""One JSON line a request on standard output; readable lines on a terminal."""

import logging
import logging.config
import sys
from time import perf_counter
from typing import Any

from flask import Flask, Response, g, request

_logger = logging.getLogger("app.requests")


def configuration(level: str) -> dict[str, Any]:
    """Return the `logging.config` of every process of the service, gunicorn's own included."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"quoted_input": {"()": _QuotedInputFilter}},
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "format": "%(levelname)s %(name)s %(message)s",
                "rename_fields": {"levelname": "level", "name": "logger"},
                "timestamp": "time",
            },
            "text": {"()": _TextFormatter},
        },
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "text" if sys.stdout.isatty() else "json",
                "filters": ["quoted_input"],
            },
        },
        "root": {"level": level.upper(), "handlers": ["stdout"]},
        "loggers": {
            # the pool tells of each checkout at INFO
            "psycopg.pool": {"level": "WARNING"},
            "gunicorn.error": {"handlers": [], "propagate": True},
            "gunicorn.access": {"handlers": [], "propagate": False},
            # yoyo tells of each step at INFO
            "yoyo": {"level": "WARNING"},
        },
    }


def init_app(app: Flask) -> None:
    """Log each request once it is answered. Comes first: it times all the rest."""
    app.before_request(_start_clock)
    app.after_request(_log_request)


def _start_clock() -> None:
    g.started_at = perf_counter()


def _log_request(response: Response) -> Response:
    caller = g.get("caller")
    _logger.info(
        "request",
        extra={
            "request_id": g.request_id,
            "method": request.method,
            # the pattern, never the path: what a client puts there may be a secret
            "route": request.url_rule.rule if request.url_rule else None,
            "status": response.status_code,
            "duration_ms": round((perf_counter() - g.started_at) * 1000, 1),
            "actor": caller.actor if caller else None,
            "unit": caller.unit_id if caller else None,
        },
    )
    return response


class _QuotedInputFilter(logging.Filter):
    """Cut what gunicorn quotes of a request: a header's value or an address may be a secret."""

    _PREFIXES = ("Invalid request from ip=", "Error handling request")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "gunicorn.error" and str(record.msg).startswith(self._PREFIXES):
            record.msg, record.args = "request not handled", None
        return True


class _TextFormatter(logging.Formatter):
    """`12:00:00 INFO request method=GET route=/secrets status=200 …`."""

    _OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        fields = [
            f"{name}={value}"
            for name, value in vars(record).items()
            if name not in self._OWN_FIELDS and value is not None
        ]
        return " ".join([super().formatMessage(record), *fields])
