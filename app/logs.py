"""Log lines: JSON on standard output, or readable text on a terminal.

Pass the values besides the message in one attribute: `extra={"fields": {…}}`.
"""

import logging
import logging.config
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from select import PIPE_BUF, select
from time import gmtime, strftime, time
from typing import Any

from app.json_bytes import json_bytes

# Do not collect what our lines never show (see "Optimization" in the documentation of logging).
logging._srcfile = ""  # noqa: SLF001  documented there
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False

_STANDARD_OUTPUT = 1


def configuration(level: str) -> dict[str, Any]:
    """Return the `logging.config` dictionary for every process, including gunicorn's master."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"quoted_input": {"()": _QuotedInputFilter}},
        "formatters": {"json": {"()": _JsonFormatter}, "text": {"()": _TextFormatter}},
        "handlers": {
            "stdout": {
                "()": _StandardOutput,
                "formatter": "text" if sys.stdout.isatty() else "json",
            },
        },
        "root": {"level": level.upper(), "handlers": ["stdout"]},
        "loggers": {
            # the pool logs each checkout at INFO
            "psycopg.pool": {"level": "WARNING"},
            "gunicorn.error": {"handlers": [], "propagate": True, "filters": ["quoted_input"]},
            "gunicorn.access": {"handlers": [], "propagate": False},
            # httpx logs each request at INFO
            "httpx": {"level": "WARNING"},
            # yoyo logs each step at INFO
            "yoyo": {"level": "WARNING"},
        },
    }


def log_fields(
    logger: logging.Logger,
    message: str,
    fields: dict[str, Any],
    lines: list[bytes] | None = None,
) -> None:
    """Log at INFO, as `logger.info(message, extra={"fields": fields})` does.

    If JSON on standard output is the only log, this takes a third of the time, and the line is
    added to `lines` if they are given, for `write_lines`. The logger must not have its own handlers
    or filters.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0].formatter, _JsonFormatter):
        line = _json_line(time(), "INFO", logger.name, message, fields) + b"\n"
        if lines is None:
            write_lines([line])
        else:
            lines.append(line)
    else:
        logger.info(message, extra={"fields": fields})


def can_write_lines() -> bool:
    """Tell whether standard output takes a write now. If it is a full pipe, `write_lines` waits."""
    with suppress(OSError):  # it is closed: nothing waits
        return bool(select([], [_STANDARD_OUTPUT], [], 0)[1])
    return True


def write_lines(lines: Iterable[bytes]) -> None:
    """Write the lines, as many in one system call as a pipe keeps together (pipe(7))."""
    block = b""
    with suppress(OSError):  # logging never ends a request
        for line in lines:
            if len(block) + len(line) > PIPE_BUF:
                _write(block)
                block = b""
            block += line
        _write(block)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(_STANDARD_OUTPUT, data) :]


class _StandardOutput(logging.Handler):
    """Writes each line in one system call, and without a lock.

    With a lock, a thread that waits in `write` would make all others wait. The kernel keeps lines
    apart anyway; in a pipe, lines of up to 4 KiB.
    """

    def createLock(self) -> None:  # noqa: N802  logging's name
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)  # there are no filters; from Python 3.13 on, `handle` requires a lock
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001  as in every handler: logging never ends a request
            self.handleError(record)


class _QuotedInputFilter(logging.Filter):
    """Removes requests that gunicorn quotes: a header or a URL may contain a secret.

    app/server/malformed_http.py writes a line for a malformed request itself, with its request ID.
    Below INFO, gunicorn also quotes what clients have sent before they left.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return False
        if str(record.msg).startswith("Error handling request"):  # it has the traceback
            record.msg, record.args = "request not handled", None
        return not str(record.msg).startswith("Invalid request from ip=")


class _JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        return _json_line(
            record.created, record.levelname, record.name, record.getMessage(), fields
        ).decode()


def _json_line(
    created: float, level: str, logger: str, message: str, fields: dict[str, Any]
) -> bytes:
    milliseconds = int(created % 1 * 1000)
    line = {
        "time": f"{_second(int(created))}.{milliseconds:03d}+00:00",
        "level": level,
        "logger": logger,
        "message": message,
        **fields,
    }
    return json_bytes(line)


@lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(timestamp))


class _TextFormatter(logging.Formatter):
    """Formats a record as `12:00:00 INFO request method=GET route=/secrets status=200 …`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        fields = [f"{name}={value}" for name, value in _fields(record).items() if value is not None]
        return " ".join([super().formatMessage(record), *fields])


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})
