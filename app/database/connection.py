"""One connection: its parameters, and how long it waits for an answer."""

import re
import select
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic
from traceback import clear_frames
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl

import psycopg
from psycopg import IsolationLevel
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.conninfo import conninfo_to_dict
from psycopg.generators import execute
from psycopg.pq import Conninfo, ExecStatus, Format
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from app.database.errors import UnsuitableDatabase

CONNECT_SECONDS = 2
CANCEL_SECONDS = 0.4
_SCHEMES = ("postgresql://", "postgres://")
IDLE_ANSWER_SECONDS = 1.0  # for the pool's own statements, on a connection that is not lent

# So that a network that drops packets is noticed in seconds, on our side and on the server's: there
# the transaction of a host that is gone would hold its locks. (Unix sockets ignore these.)
_TCP = {"keepalives_idle": 5, "keepalives_interval": 1, "keepalives_count": 3}
_TCP_USER_TIMEOUT_MS = 3000
_SERVER_TCP = " ".join(
    f"-c tcp_{name}={value}"
    for name, value in {**_TCP, "user_timeout": _TCP_USER_TIMEOUT_MS}.items()
)

# What our SQL relies on, whatever the server, the database or the role sets by default.
_ASSUMED = (
    "-c default_transaction_isolation=read\\ committed -c standard_conforming_strings=on "
    "-c DateStyle=ISO -c client_min_messages=warning -c idle_session_timeout=0"
)
# Those of them that a variable of the environment (PGDATESTYLE) or a pooler may override, and the
# start of what the server then reports. PgBouncer remembers them for each of its clients, so here
# SET is safe.
_REPORTED = {"DateStyle": "ISO", "standard_conforming_strings": "on"}

# For the commit of the transaction. By default it may be off, or not wait for the standby.
DURABLE = """
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)
"""

_T = TypeVar("_T")


@dataclass(frozen=True)
class PreparedSelect:
    """A SELECT that Postgres parses and plans once for each connection (ADR 14).

    Its parameters, `$1` and so on, are text. Its name is a hash of the text: so even behind a
    pooler that mixes up its clients' prepared statements, a name always means the same statement.
    """

    text: str
    name: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = sha256(self.text.encode()).hexdigest()[:32]
        object.__setattr__(self, "name", f"leadvibe_{digest}".encode())


# A commit that wrote something waits for the synchronous standby. This writes an empty message.
_AWAIT_STANDBY = PreparedSelect(f"""
    SELECT {DURABLE}, pg_logical_emit_message(true, 'leadvibe', '')
    WHERE current_setting('synchronous_standby_names') <> '' AND NOT pg_is_in_recovery()
""")

# What a prepared statement raises after a pooler has lent another server connection, or a migration
# has changed a column's type.
_PREPARED_ELSEWHERE = (
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.FeatureNotSupported,
)


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that gives up when the server has not answered by `deadline` (monotonic time).

    Neither `statement_timeout` nor TCP ends the wait for a server that is frozen. Once it has given
    up, every further statement fails at once; call `abandon` to close it.
    """

    deadline: float | None = None
    gave_up = False
    failovers = 0  # the process had seen so many when it connected

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._statements: set[bytes] = set()
        self.may_prepare = True
        self._transformer = Transformer(self)

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Self:
        """Connect. An attempt that fails is closed before the error is raised."""
        try:
            connection = super().connect(*args, **kwargs)
        except psycopg.Error as error:
            # psycopg does not close an attempt that timed out, and its error and its stack frame
            # refer to each other. So the socket would stay open until Python's garbage collector
            # runs, and a frozen server would make a session of it when it wakes up.
            clear_frames(error.__traceback__)
            raise
        try:
            connection.isolation_level = IsolationLevel.READ_COMMITTED
            for name, value in _REPORTED.items():
                if not (connection.info.parameter_status(name) or "").startswith(value):
                    connection.execute(f"SET {name} = {value}")
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def select(self, statement: PreparedSelect, *parameters: str) -> list[TupleRow]:
        """Return the rows.

        It calls libpq directly, because psycopg's cursor takes longer than Postgres (ADR 14).
        """
        if self.may_prepare:
            try:
                self._prepare(statement)
                self.send_select(statement, *parameters)
                return self._await_rows()
            except _PREPARED_ELSEWHERE:
                self.may_prepare = False
        self.send_select(statement, *parameters)
        return self._await_rows()

    def send_select(self, statement: PreparedSelect, *parameters: str) -> None:
        """Send the statement, which `select` has prepared unless that does not work here."""
        values = [parameter.encode() for parameter in parameters]
        if self.may_prepare:
            self.pgconn.send_query_prepared(statement.name, values, None, Format.BINARY)
        else:
            text = statement.text.encode()
            self.pgconn.send_query_params(text, values, result_format=Format.BINARY)

    def rows(self, result: PGresult) -> list[TupleRow]:
        """Return the rows of a result. Raises psycopg.Error if it is an error."""
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def _prepare(self, statement: PreparedSelect) -> None:
        if statement.name not in self._statements:
            self.pgconn.send_prepare(statement.name, statement.text.encode())
            self._await_rows()
            self._statements.add(statement.name)

    def _await_rows(self) -> list[TupleRow]:
        return self.rows(self.wait(execute(self.pgconn))[-1])

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        if self.gave_up:
            raise psycopg.OperationalError("the connection gave up on an earlier statement")
        deadline = self.deadline or monotonic() + IDLE_ANSWER_SECONDS
        bound = max(0.0, deadline - monotonic())
        try:
            return super().wait(gen, interval=interval, timeout=min(bound, timeout or bound))
        except psycopg.OperationalError:
            # psycopg has no public name for the error of this timeout
            self.gave_up = monotonic() >= deadline
            raise

    def await_standby(self) -> None:
        """Wait until the synchronous standby, if there is one, has all that was committed so far.

        Call it outside of a transaction (ADR 22).
        """
        self.select(_AWAIT_STANDBY)

    def is_stale(self) -> bool:
        """Tell whether the idle connection is dead, without a round trip.

        An idle server sends nothing. If there is something to read, the connection has ended, or a
        notice has come, which is too rare to be told apart.
        """
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))

    def abandon(self) -> None:
        """Ask the server to cancel the statement that the connection gave up on, then close it.

        Closing alone would leave a server process behind that still waits, for example for a
        standby.
        """
        try:
            self.cancel_safe(timeout=CANCEL_SECONDS)
        except psycopg.Error:
            pass  # the server is gone or frozen
        finally:
            self.close()


def connection_parameters(
    url: str, *, target_session_attrs: str, options: str = ""
) -> dict[str, Any]:
    """Return libpq's parameters: those of the URI, and our defaults for the others.

    Encoding and connect timeout are always ours. Raises psycopg.ProgrammingError if `url` is not a
    connection URI.
    """
    given = conninfo_to_dict(url)
    return {
        "target_session_attrs": target_session_attrs,
        "fallback_application_name": "leadvibe-credentials",
        "tcp_user_timeout": _TCP_USER_TIMEOUT_MS,
        **_TCP,
        **given,
        "client_encoding": "UTF8",
        "options": f"{_SERVER_TCP} {_ASSUMED} {options} {given.get('options', '')}".strip(),
        "connect_timeout": CONNECT_SECONDS,
    }


def require_utf8(connection: psycopg.Connection[Any]) -> None:
    """Raise UnsuitableDatabase unless the database can store every name."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UnsuitableDatabase(
            f"The encoding of the database is {encoding}, and must be UTF8: a database keeps the "
            "encoding that it was created with"
        )


def is_connection_uri(text: str) -> bool:
    """Tell whether libpq accepts the text as a connection URI."""
    if not text.startswith(_SCHEMES):
        return False
    try:
        ports = str(conninfo_to_dict(text).get("port", ""))
    except psycopg.Error:
        return False
    # libpq itself checks the ports only when it connects
    return all(not port or port.isdecimal() for port in ports.split(","))


def unknown_parameters(uri: str) -> list[str]:
    """Return the parameters in the URI that libpq does not know: other clients have their own."""
    if not uri.startswith(_SCHEMES):
        return []
    query = uri.rpartition("@")[2].partition("?")[2]  # the password may have a question mark
    known = {each.keyword.decode() for each in Conninfo.get_defaults()}
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    return [name for name in names if name not in known and re.fullmatch("[A-Za-z_]+", name)]
