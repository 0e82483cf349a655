"""No document and no script puts a password into the arguments of a process.

Anybody on the machine can read these.
"""

import re

import pytest

from tests.running_server import ROOT

FOLDERS = ("app", "bench", "deploy", "docs", "drills", "examples", "tools", ".ci")
KINDS = {".md", ".sql", ".sh", ".py", ".yaml", ".yml", ".conf", ".service", ".html", ".jinja", ""}

CLIENT = re.compile(
    r"\b(?:psql|pg_(?:dump|dumpall|restore|basebackup|isready)|createdb|vacuumdb|redis-cli)\b(.*)"
)
PASSWORD = re.compile(
    r"\$\{?\w*(?:URL|URI|DSN|PASSWORD|SECRET)"  # a variable that may have one
    r"|\w+://[^\s/@]*:[^\s/@]*@"
    r"|\bpassword="
    r"|\s(?:-u|-a|--pass|--uri)\b"  # redis-cli
)


def has_password(line):
    arguments = CLIENT.search(line)
    return bool(arguments and PASSWORD.search(arguments[1]))


@pytest.mark.parametrize(
    "line",
    [
        'psql "$OWNERS_DATABASE_URL" --command x',
        'SERVICE_PASSWORD=x psql --file service-role.sql "$OWNERS_DATABASE_URL"',
        'pg_dump --file=x "${DATABASE_URL}"',
        'pg_restore --dbname="$RESTORED_URL" x',
        "psql postgresql://owner:secret@db/credentials",
        'psql "host=db password=secret"',
        'redis-cli -u "$RATELIMIT_STORAGE_URL" FLUSHDB',
        "redis-cli -a secret FLUSHDB",
        "redis-cli --pass secret FLUSHDB",
    ],
)
def test_a_password_in_the_arguments_is_found(line):
    assert has_password(line)


def test_no_command_has_a_password_in_its_arguments():
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = {path: path.read_text() for path in paths if path.suffix in KINDS}
    lines = [
        f"{path.relative_to(ROOT)}: {line}"
        for path, text in texts.items()
        for line in text.replace("\\\n", " ").splitlines()
    ]
    assert any("PGSERVICE=credentials-owner psql" in line for line in lines)
    assert [line for line in lines if has_password(line)] == []
