"""What goes wrong with the database, as the rest of the service sees it."""

import psycopg


class DatabaseUnavailable(Exception):
    """The database does not answer, or cannot serve now. A later attempt may succeed."""


class DatabaseFault(Exception):
    """The database rejected one of our statements: a bug. Names the error, never its values."""


def describe(error: psycopg.Error) -> str:
    """Name the error without its message, which may quote a row or a connection string."""
    words = [type(error).__name__, error.sqlstate, error.diag.constraint_name]
    return " ".join(word for word in words if word)
