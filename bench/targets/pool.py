"""The floors' connection pool: psycopg_pool's, opened after the fork.

The floors import nothing from the service, so that a change to the service does not change them.
"""

import os

from psycopg_pool import ConnectionPool

_SIZE = 5  # one for each of four threads, and one to spare


def pool_from_environment() -> ConnectionPool:
    """Return a pool on DATABASE_URL that is not open yet."""
    return ConnectionPool(
        os.environ["DATABASE_URL"],
        kwargs={"autocommit": True},
        min_size=_SIZE,
        max_size=_SIZE,
        open=False,
    )
