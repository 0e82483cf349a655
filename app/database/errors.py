"""The errors of the database, as the rest of the service sees them."""

import psycopg

# Transient failures: the start of their SQLSTATE (two characters are its class),
# and what is wrong with the database. The first match counts. psycopg's exception classes do not
# group them in this way.
_TRANSIENT = {
    "08": "the connection broke",
    "25006": "it is read-only",  # a standby, or a primary that was made read-only
    "25P03": "a transaction was idle for too long",
    "25P04": "a transaction took too long",
    "40": "another transaction conflicted with ours",  # deadlocks and other rollbacks
    "42P01": "it is not migrated",  # no such table
    "42703": "it is not migrated",  # no such column
    "53": "it is out of connections, memory or disk space",
    "55P03": "a lock was not free in time",
    "57014": "it took too long",
    "57": "it is starting or shutting down",
    "58": "its operating system reported an error",
}


class DatabaseUnavailable(Exception):
    """The database does not answer, or cannot serve now. A later attempt may succeed.

    The message names the error, for the log. `reason` says what is wrong, for people.
    """

    def __init__(self, message: str, reason: str = "it does not answer") -> None:
        super().__init__(message)
        self.reason = reason


class DatabaseTooSlow(DatabaseUnavailable):
    """The database ended a statement that took too long. Its transaction changed nothing."""


class DatabaseFault(Exception):
    """The database rejected one of our statements: a bug. The message never quotes values."""


class UnsuitableDatabase(Exception):
    """The database is not as the service needs it. The message is for operators."""


def is_transient(error: psycopg.Error) -> bool:
    """Tell whether a later attempt may succeed."""
    if error.sqlstate is None:  # libpq's own, or a timeout of ours
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(tuple(_TRANSIENT))


def unavailable(error: psycopg.Error) -> DatabaseUnavailable:
    """Return the exception to raise for a transient error."""
    state = error.sqlstate or ""
    reasons = [words for prefix, words in _TRANSIENT.items() if state.startswith(prefix)]
    is_slow = isinstance(error, psycopg.errors.QueryCanceled)
    kind = DatabaseTooSlow if is_slow else DatabaseUnavailable
    return kind(describe(error), *reasons[:1])


def unreachable(error: psycopg.Error) -> DatabaseUnavailable:
    """Return the exception to raise if connecting failed. libpq's message has no password in it."""
    # with several hosts, libpq has a line for each; its hints are left out
    first, *more = str(error).splitlines() or ["no answer"]
    attempts = [line for line in more if line.startswith("- ")] or [first]
    reason = "; ".join(line.rpartition("connection failed: ")[2] for line in attempts)
    return DatabaseUnavailable(describe(error), reason)


def describe(error: psycopg.Error) -> str:
    """Name the error without its message, which may quote a row or a connection string."""
    words = [type(error).__name__, error.sqlstate, error.diag.constraint_name]
    return " ".join(word for word in words if word)
