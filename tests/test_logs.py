import json
import logging
import logging.config
import os
import pty
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from app import logs
from tests.running_server import ROOT

LOG_ONE_REQUEST = (
    "import logging, logging.config\n"
    "from app import logs\n"
    "logging.config.dictConfig(logs.configuration('info'))\n"
    "fields = {'status': 200, 'actor': None}\n"
    "logging.getLogger('app.requests').info('request', extra={'fields': fields})\n"
    "logging.getLogger('app').debug('too much')\n"
)


def test_on_a_terminal_a_log_line_is_readable_text():
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", LOG_ONE_REQUEST], cwd=ROOT, stdout=theirs, check=True)
    os.close(theirs)
    line = os.read(ours, 1000).decode()
    os.close(ours)
    assert line.endswith(" INFO request status=200\r\n")


def test_elsewhere_a_log_line_is_json():
    line = subprocess.check_output([sys.executable, "-c", LOG_ONE_REQUEST], cwd=ROOT, text=True)
    assert line.count("\n") == 1
    logged = json.loads(line)
    assert list(logged) == ["time", "level", "logger", "message", "status", "actor"]
    assert datetime.fromisoformat(logged["time"]).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        ("Invalid request from ip=127.0.0.1: Invalid HTTP header: 'Authorization s3cret'", []),
        ("Error handling request GET /s3cret", ["request not handled"]),
        ("Booting worker", ["Booting worker"]),
    ],
)
def test_what_gunicorn_quotes_from_a_request_is_not_logged(message, logged):
    record = logging.LogRecord("gunicorn.error", logging.WARNING, __file__, 1, message, (), None)
    (quoted_input,) = (each["()"]() for each in logs.configuration("info")["filters"].values())
    assert [each.getMessage() for each in [record] if quoted_input.filter(each)] == logged
