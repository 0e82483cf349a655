"""What goes wrong with the database, as the rest of the service sees it."""

import psycopg

# SQLSTATEs (and classes: their first two characters) of failures that pass by themselves, whatever
# class psycopg has for them.
_PASSING = (
    "08",  # connection exceptions
    "25006",  # read-only: a standby, or a primary that was told to be
    "25P03",  # idle-in-transaction timeout
    "25P04",  # transaction timeout
    "40",  # deadlocks and other rollbacks
    "42P01",  # no such table: not migrated yet
    "42703",  # no such column: as above
    "53",  # out of connections, memory or disk
    "55P03",  # lock timeout
    "57",  # shutting down, or cancelled by a timeout
    "58",  # errors of the system, such as input and output
)


class DatabaseUnavailable(Exception):
    """The database does not answer, or cannot serve now. A later attempt may succeed."""


class DatabaseFault(Exception):
    """The database rejected one of our statements: a bug. Names the error, never its values."""


def may_pass(error: psycopg.Error) -> bool:
    """Tell whether a later attempt may succeed."""
    if error.sqlstate is None:  # libpq's own, or a timeout of ours
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_PASSING)


def describe(error: psycopg.Error) -> str:
    """Name the error without its message, which may quote a row or a connection string."""
    words = [type(error).__name__, error.sqlstate, error.diag.constraint_name]
    return " ".join(word for word in words if word)
