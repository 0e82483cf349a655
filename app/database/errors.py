"""What goes wrong with the database, as the rest of the service sees it."""

import psycopg

# SQLSTATEs (and classes: their first two characters) of failures that pass by themselves, whatever
# class psycopg has for them, and what they say about the database. The first that fits counts.
_PASSING = {
    "08": "the connection broke",
    "25006": "it is read-only",  # a standby, or a primary that was told to be
    "25P03": "a transaction was idle for too long",
    "25P04": "a transaction took too long",
    "40": "another transaction was in the way",  # deadlocks and other rollbacks
    "42P01": "it is not migrated",  # no such table
    "42703": "it is not migrated",  # no such column
    "53": "it is out of connections, memory or disk space",
    "55P03": "what was needed is locked",
    "57014": "it took too long",
    "57": "it is starting or shutting down",
    "58": "its operating system reported an error",
}


class DatabaseUnavailable(Exception):
    """The database does not answer, or cannot serve now. A later attempt may succeed.

    The message names the error for the log. `reason` says in words what is wrong.
    """

    def __init__(self, message: str, reason: str = "it does not answer") -> None:
        super().__init__(message)
        self.reason = reason


class DatabaseFault(Exception):
    """The database rejected one of our statements: a bug. Names the error, never its values."""


def may_pass(error: psycopg.Error) -> bool:
    """Tell whether a later attempt may succeed."""
    if error.sqlstate is None:  # libpq's own, or a timeout of ours
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(tuple(_PASSING))


def unavailable(error: psycopg.Error) -> DatabaseUnavailable:
    """Return what to raise for an error that may pass."""
    state = error.sqlstate or ""
    reasons = [words for prefix, words in _PASSING.items() if state.startswith(prefix)]
    return DatabaseUnavailable(describe(error), *reasons[:1])


def unreachable(error: psycopg.Error) -> DatabaseUnavailable:
    """Return what to raise if no connection could be made. libpq's reason has no password in it."""
    # one line for each host, if there are several; of libpq's hints, nothing
    first, *more = str(error).splitlines() or ["no answer"]
    attempts = [line for line in more if line.startswith("- ")] or [first]
    reason = "; ".join(line.rpartition("connection failed: ")[2] for line in attempts)
    return DatabaseUnavailable(describe(error), reason)


def describe(error: psycopg.Error) -> str:
    """Name the error without its message, which may quote a row or a connection string."""
    words = [type(error).__name__, error.sqlstate, error.diag.constraint_name]
    return " ".join(word for word in words if word)
