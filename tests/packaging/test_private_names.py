"""The private parts of libraries that the service uses. setup.cfg bounds these libraries.

If a test fails after an upgrade, compare the code that it names with the new version.
"""

import logging
import re
import socket
from datetime import UTC, datetime
from importlib.metadata import version
from inspect import signature
from pkgutil import resolve_name
from time import monotonic

import gunicorn.util
import pytest
from gunicorn import http
from gunicorn.config import Config
from gunicorn.http import parser, wsgi
from gunicorn.http.errors import InvalidRequestLine
from gunicorn.workers.gthread import TConn, ThreadWorker
from prometheus_client import values

from app.database.connection import BoundedConnection, PreparedSelect
from app.metrics.directory import WorkerFiles
from app.metrics.requests import BUCKETS
from app.metrics.series import Series
from tests.running_server import ROOT

# For each library, our code, and the parameters of each part that it calls or overrides.
PRIVATE = {
    "gunicorn": (
        "app/server",
        {
            "gunicorn.http.body:ChunkedReader": "req unreader",
            "gunicorn.http.body:ChunkedReader.parse_chunk_size": "self unreader data",
            "gunicorn.http.message:Request.parse_headers": "self data from_trailer",
            "gunicorn.http.message:Request.read_into": "self unreader buf stop",
            "gunicorn.http.parser:SocketUnreader": "sock max_chunk",
            "gunicorn.http.parser:SocketUnreader.chunk": "self size_hint",
            "gunicorn.http.parser:SocketUnreader.read": "self size read_ahead",
            "gunicorn.http.parser:SocketUnreader.take_buffered": "self",
            "gunicorn.http.parser:SocketUnreader.unread": "self data",
            "gunicorn.http.wsgi:Response": "req sock cfg",
            "gunicorn.http.wsgi:Response.force_close": "self",
            "gunicorn.http.wsgi:Response.process_headers": "self headers",
            "gunicorn.util:http_date": "timestamp",
            "gunicorn.util:write_error": "sock status_int reason mesg",
            "gunicorn.util:write_nonblock": "sock data chunked",
            "gunicorn.workers.gthread:PollableMethodQueue.defer": "self callback args",
            "gunicorn.workers.gthread:TConn": "cfg sock client server",
            "gunicorn.workers.gthread:TConn.close": "self graceful",
            "gunicorn.workers.gthread:TConn.init": "self",
            "gunicorn.workers.gthread:ThreadWorker._cap_keepalive": "self deadline",
            "gunicorn.workers.gthread:ThreadWorker.accept": "self listener",
            "gunicorn.workers.gthread:ThreadWorker.enqueue_req": "self conn",
            "gunicorn.workers.gthread:ThreadWorker.finish_request": "self conn fs",
            "gunicorn.workers.gthread:ThreadWorker.get_thread_pool": "self",
            "gunicorn.workers.gthread:ThreadWorker.handle": "self conn",
            "gunicorn.workers.gthread:ThreadWorker.handle_error": "self req client addr exc",
            "gunicorn.workers.gthread:ThreadWorker.init_process": "self",
            "gunicorn.workers.gthread:ThreadWorker.murder_pending": "self",
            "gunicorn.workers.gthread:ThreadWorker.run": "self",
            "gunicorn.workers.gthread:ThreadWorker.wait_for_and_dispatch_events": "self timeout",
        },
    ),
    "marshmallow": (
        "app/api/schemas/fields.py",
        {
            "marshmallow.fields:Field._serialize": "self value attr obj kwargs",
            "marshmallow.fields:Field._deserialize": "self value attr data kwargs",
        },
    ),
    "prometheus-client": (
        "app/metrics",
        {
            "prometheus_client.multiprocess:MultiProcessCollector": "registry path",
            "prometheus_client.multiprocess:mark_process_dead": "pid path",
            "prometheus_client.values:MultiProcessValue": "process_identifier",
        },
    ),
    "psycopg": (
        "app/database",
        {
            "psycopg:Connection.wait": "self gen interval timeout",
            "psycopg.adapt:Transformer.load_rows": "self row0 row1 make_row",
            "psycopg.adapt:Transformer.set_pgresult": "self result set_loaders format",
            "psycopg.errors:error_from_result": "result encoding",
            "psycopg.generators:execute": "pgconn",
        },
    ),
    "yoyo-migrations": (
        "app/database/migrations.py",
        {
            "yoyo.backends.core.postgresql:PostgresqlPsycopgBackend": "dburi migration_table",
            "yoyo.backends.core.postgresql:PostgresqlPsycopgBackend.lock": "self timeout",
            "yoyo.backends.core.postgresql:PostgresqlPsycopgBackend.mark_one": "self migration log",
            "yoyo.backends.core.postgresql:PostgresqlPsycopgBackend.to_apply": "self migrations",
            "yoyo.connections:DatabaseURI": "scheme username password hostname port database args",
            "yoyo.migrations:Migration.process_steps": "self backend direction force",
        },
    ),
}


def changed(library):
    return f"{library} {version(library)} has changed a private part: check {PRIVATE[library][0]}"


def parameters(name):
    try:
        return " ".join(signature(resolve_name(name)).parameters)
    except (ImportError, AttributeError):
        return "gone"


@pytest.mark.parametrize("library", PRIVATE)
def test_private_parts_have_the_same_parameters(library):
    expected = PRIVATE[library][1]
    assert {name: parameters(name) for name in expected} == expected, changed(library)


@pytest.mark.parametrize("library", PRIVATE)
def test_a_library_with_private_parts_has_an_upper_bound_and_a_reason(library):
    line = rf"^ +# .+\n +{library}(\[.*\])? >= \S+, < \S+$"
    assert re.search(line, (ROOT / "setup.cfg").read_text(), re.MULTILINE), library


@pytest.fixture
def sockets():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def worker():
    log = logging.getLogger("a worker")
    worker = ThreadWorker(1, 1, [], None, 30, Config(), log)
    yield worker
    worker.tmp.close()


def test_gunicorns_objects_have_the_attributes_that_the_worker_uses(worker, sockets):
    connection = TConn(worker.cfg, sockets[0], ("127.0.0.1", 1), ("127.0.0.1", 2))
    used = {
        worker: "_accepting alive cfg max_requests method_queue nr nr_conns poller "
        "tpool worker_connections",
        connection: "client data_ready initialized parser sock timeout",
    }
    missing = [
        name for each, names in used.items() for name in names.split() if not hasattr(each, name)
    ]
    assert not missing, changed("gunicorn")
    connection.init()
    assert connection.parser.unreader.buf.getvalue() == b"", changed("gunicorn")


def test_gunicorn_uses_what_replaces_its_own(worker, sockets, monkeypatch):
    class Unreader(parser.SocketUnreader):
        pass

    class Response(wsgi.Response):
        pass

    errors = []
    monkeypatch.setattr(parser, "SocketUnreader", Unreader)
    monkeypatch.setattr(wsgi, "Response", Response)
    monkeypatch.setattr(gunicorn.util, "write_error", lambda *error: errors.append(error))
    here, there = sockets
    there.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    address = ("127.0.0.1", 1)
    requests = http.get_parser(worker.cfg, here, address)
    response, _ = wsgi.create(next(requests), here, address, address, worker.cfg)
    worker.handle_error(None, here, address, InvalidRequestLine("x"))
    assert type(requests.unreader) is Unreader, changed("gunicorn")
    assert type(response) is Response, changed("gunicorn")
    assert [error[:2] for error in errors] == [(here, 400)], changed("gunicorn")


def test_psycopg_loads_the_rows_of_a_select(database_url):
    select = PreparedSelect("SELECT $1, true, NULL::text, '2027-01-31Z'::timestamptz, ARRAY['a']")
    with BoundedConnection.connect(database_url, autocommit=True) as connection:
        connection.deadline = monotonic() + 60
        rows = connection.select(select, "x")
    moment = datetime(2027, 1, 31, tzinfo=UTC)
    assert rows == [("x", True, None, moment, ["a"])], changed("psycopg")


@pytest.fixture
def alone():
    """The series of a process that shares nothing. Ask for it before `shared`."""
    return Series()


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The series of a process that shares its metrics."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # puts back what Series replaces
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # as above
    files = WorkerFiles(tmp_path, 7)
    files.prepare()
    return Series(files)


def test_prometheus_client_shows_shared_series_like_its_own(alone, shared):
    for series in (shared, alone):
        series.requests.labels("/verify", "GET", "200").inc(3)
        series.request_seconds.labels("/verify", "GET").add(range(len(BUCKETS) + 1), 1.5)
        series.places.labels("verification").set(4)
    assert samples(shared) == samples(alone), changed("prometheus-client")


def test_prometheus_client_writes_to_the_files_that_were_made_for_it(shared, tmp_path):
    made = {each.name: each.stat().st_size for each in tmp_path.iterdir()}
    shared.requests.labels("/verify", "GET", "200").inc()
    shared.places.labels("verification").set(4)
    used = {each.name: each.stat().st_size for each in tmp_path.iterdir()}
    assert used == made, changed("prometheus-client")
    assert b"verification" in (tmp_path / "gauge_livesum_7.db").read_bytes(), changed(
        "prometheus-client"
    )


def samples(series):
    lines = series.text().decode().splitlines()
    return {each for each in lines if not each.startswith("#")}
