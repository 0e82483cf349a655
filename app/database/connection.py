"""One connection: where it leads, and how long it waits for an answer."""

from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

CONNECT_SECONDS = 2
IDLE_ANSWER_SECONDS = 1.0  # for what the pool itself asks of a connection that nobody holds

_T = TypeVar("_T")


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that closes itself when the server has not answered by `deadline`.

    Neither `statement_timeout` nor TCP ends the wait for a server that is stopped but not gone.
    """

    deadline: float | None = None

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        bound = IDLE_ANSWER_SECONDS
        if self.deadline is not None:
            bound = max(0.0, self.deadline - monotonic())
        try:
            return super().wait(gen, interval=interval, timeout=min(bound, timeout or bound))
        except errors._WaitTimeout:  # noqa: SLF001  psycopg has no public name for it
            self.pgconn.finish()
            raise


def connection_parameters(url: str) -> dict[str, Any]:
    """Return libpq's parameters of the URI, with ours where it has none.

    Raises psycopg.ProgrammingError for what is no connection URI.
    """
    return {
        "target_session_attrs": "read-write",
        "fallback_application_name": "leadvibe-credentials",
        **conninfo_to_dict(url),
        "connect_timeout": CONNECT_SECONDS,
    }


def is_connection_uri(text: str) -> bool:
    """Tell whether libpq would understand the text as a connection URI."""
    if not text.startswith(("postgresql://", "postgres://")):
        return False
    try:
        ports = str(conninfo_to_dict(text).get("port", ""))
    except psycopg.Error:
        return False
    # libpq itself looks at the ports when it connects, and not before
    return all(not port or port.isdecimal() for port in ports.split(","))


def takes_writes(connection: psycopg.Connection[TupleRow]) -> bool:
    """Tell whether the server lets this session write, as a standby does not."""
    rows = connection.execute("SELECT current_setting('transaction_read_only')").fetchall()
    return rows == [("off",)]
