"""A million credentials, client secrets and events make no statement read more.

The tests look at the plans and at the pages that they touch, never at the clock.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from psycopg.sql import SQL

from app.credentials import repository
from app.credentials.model import (
    CredentialFilter,
    EventFilter,
    HashedSecret,
    LockedCredential,
    RefusedVerification,
    StoredResponse,
    TrailPosition,
    Use,
)
from app.database.migrations import migrate
from app.database.schema import is_migrated
from tests.big_database import (
    BIG_UNIT,
    BIG_UNIT_SIZE,
    BUSY,
    NUMBER_OF_QUIET,
    QUIET,
    SMALL_UNIT,
    TABLES,
    fill,
)
from tests.conftest import new_postgres
from tests.helpers import caller

pytestmark = pytest.mark.long


class Statement(NamedTuple):
    """Which tables a statement read from beginning to end, and how many pages it touched."""

    read_whole: set[str]
    pages: int


class ExplainingConnection(psycopg.Connection[Any]):
    """Explains each statement, undoes it, and then runs it.

    It stands in for the pool too: the SELECT of a verification is explained with the plan that
    Postgres makes for every client ID.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor_factory = ExplainingCursor
        self.statements: list[Statement] = []

    def explain(self, query: Any, parameters: Any = None) -> None:
        explain = SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + query
        with self.transaction(force_rollback=True), psycopg.Cursor(self) as cursor:
            [([explained],)] = cursor.execute(explain, parameters).fetchall()
        plan = explained["Plan"]
        self.statements.append(
            Statement(
                read_whole={
                    node["Relation Name"] for node in nodes(plan) if "Seq Scan" in node["Node Type"]
                },
                pages=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
            )
        )

    def select(self, statement: Any, *parameters: str, **_: float) -> list[Any]:
        name, values = statement.name.decode(), ", ".join(f"'{each}'" for each in parameters)
        with psycopg.Cursor(self) as cursor:
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            cursor.execute(f"PREPARE {name} AS {statement.text}")
            self.explain(SQL(f"EXECUTE {name} ({values})"))
            return cursor.execute(f"EXECUTE {name} ({values})").fetchall()


class ExplainingCursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self.connection.explain(SQL(query) if isinstance(query, str) else query, params)
        return super().execute(query, params, **options)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


class Case(NamedTuple):
    """A call of a function of the repository, and how many pages each statement may touch."""

    name: str
    pages: int
    call: Callable[[ExplainingConnection], Any]


WRITER = UUID(int=1)
PAGE = 1001  # the longest page, and the row that shows that more follow
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
CALLER = caller(SMALL_UNIT)
SECRET = HashedSecret(secret_hash="$2b$10$" + "x" * 53, digest=b"x" * 40, hint="abcd")
LOCKED = LockedCredential(QUIET, SMALL_UNIT, "lv_ci_x", "x", True, NOW, True, False, None, None)
RESPONSE = StoredResponse(b"k" * 32, b"f" * 32, b"encrypted")
ONE = {"unit_id": SMALL_UNIT, "secret_id": QUIET}
BUSY_ONE = {"unit_id": BIG_UNIT, "secret_id": BUSY}
KEY_ID = bytes(8)  # with which all digests begin
HUNDRED_DIGESTS = [number.to_bytes(40) for number in range(1, 100_001, 1000)]
THOUSAND = {i: "sec_" + str(i).zfill(20) for i in range(1, 900_000, 900)}
THOUSAND_USES = [Use(i, each, 1.0, "192.0.2.1", "req") for i, each in THOUSAND.items()]
THOUSAND_REFUSALS = [
    RefusedVerification(each, "wrong", None, [b"x" * 40, b"y" * 40], "192.0.2.1", 1.0)
    for each in THOUSAND.values()
]


def case(function: Callable[..., Any], pages: int, *arguments: Any, **named: Any) -> Case:
    return Case(
        function.__name__, pages, lambda connection: function(connection, *arguments, **named)
    )


def listed(
    pages: int, unit_id: str, select: Any = repository.select_credentials, **conditions: Any
) -> Case:
    only = CredentialFilter(**conditions)
    return case(select, pages, unit_id=unit_id, only=only, limit=PAGE, after=None)


def trail(pages: int, *, at_the_end: bool = False, **conditions: Any) -> list[Case]:
    """Read a page of the big trail in both orders, and as a follower who has read everything."""
    only = EventFilter(**conditions)

    def read(connection: ExplainingConnection, order: Any, *, has_read_all: bool = False) -> None:
        window = repository.find_trail_window(
            connection, unit_id=BIG_UNIT, since=only.since, until=only.until
        )
        repository.select_unit_events(
            connection,
            unit_id=BIG_UNIT,
            only=only,
            order=order,
            limit=PAGE,
            after=window.newest if has_read_all else None,
            window=window,
        )

    name = f"select_unit_events({', '.join(conditions)})"
    return [
        Case(f"{name} asc", pages, lambda each: read(each, "asc")),
        Case(f"{name} desc", pages, lambda each: read(each, "desc")),
        Case(f"{name} followed", 30, lambda each: read(each, "asc", has_read_all=True)),
    ]


# A page of the trail may look up client ID and name of each event in the event of the issue.
FULL_PAGE = PAGE * 10

CASES = [
    case(repository.lock_unit, 0, unit_id=BIG_UNIT),
    case(repository.lock_unit_shared, 0, unit_id=BIG_UNIT),
    case(repository.lock_quota, 0, unit_id=BIG_UNIT),
    case(repository.find_time, 0),
    case(
        repository.insert_credential, 300, CALLER, secret_id="sec_" + "z" * 20,
        client_id="lv_ci_" + "z" * 20, name="x", secret=SECRET, expires_at=None,
        scopes=None, addresses=None, detail={}, max_credentials=10_000,
    ),
    # the client secrets of each credential of the unit, and of no other
    listed(2 * PAGE, SMALL_UNIT),
    listed(2 * PAGE, BIG_UNIT),
    listed(2 * PAGE, SMALL_UNIT, name="nothing like it"),
    # of each credential, also the event of its issue and its client secrets, twice
    listed(20 * PAGE, BIG_UNIT, repository.select_detailed_credentials),
    listed(20 * PAGE, SMALL_UNIT, repository.select_detailed_credentials, enabled=False),
    listed(2 * PAGE, SMALL_UNIT, enabled=False),
    listed(2 * PAGE, SMALL_UNIT, unrestricted=True),
    listed(2 * PAGE, SMALL_UNIT, unrestricted=False),
    listed(10, BIG_UNIT, client_id="lv_ci_x"),
    *(
        listed(6 * size, unit, **condition)
        for unit, size in ((SMALL_UNIT, 1000), (BIG_UNIT, BIG_UNIT_SIZE))
        for condition in (
            {"expiring_before": NOW + DAY}, {"unused_since": NOW - 900 * DAY},
            {"unused_since": NOW}, {"refused_since": NOW},
        )
    ),
    case(repository.count_credentials, 5000, unit_id=BIG_UNIT, enabled=None),
    case(repository.count_credentials, 5000, unit_id=BIG_UNIT, enabled=True),
    case(repository.find_credential, 30, **ONE),
    case(repository.find_credential, 30, **BUSY_ONE),
    case(repository.find_owner, 10, client_id="lv_ci_" + QUIET[4:]),
    case(repository.select_units, 20, secret_ids=[QUIET, BUSY]),
    case(repository.lock_credential, 10, **ONE),
    case(repository.lock_credentials, 20, secret_ids=[QUIET, BUSY]),
    *(
        case(
            repository.find_recent_use, 30, **ONE, client_secret_id=number, within_seconds=3600,
            seconds_ago=None,
        )
        for number in (None, NUMBER_OF_QUIET)
    ),
    case(repository.select_finished_rotations, 100, unit_id="unit_none", unused_seconds=60),
    case(
        repository.select_finished_rotations, 12 * BIG_UNIT_SIZE, unit_id=BIG_UNIT,
        unused_seconds=60,
    ),
    case(repository.update_credential, 100, LOCKED),
    case(repository.delete_credential, 20, **ONE),
    case(repository.select_client_secrets, 20, **ONE),
    case(repository.select_stored_secrets, 20, client_id="lv_ci_" + QUIET[4:], seconds=1.0),
    # one for each that it counts, and the index
    case(repository.count_unrestricted, 2 * 100_000),
    # before what is rolled back leaves dead entries in the index of digests
    case(repository.select_secrets_without_digest, 30, key_ids=[KEY_ID], hints=["abcd"]),
    # four for each client secret that it looks at, and those it sorts
    case(repository.count_expiring_secrets, 6 * 20_000),
    case(repository.update_digest, 100, client_secret_id=NUMBER_OF_QUIET, digest=b"y" * 40),
    case(repository.update_last_use, 60 * len(THOUSAND_USES), THOUSAND_USES),
    case(repository.update_last_refused, 60 * len(THOUSAND_REFUSALS), THOUSAND_REFUSALS),
    case(repository.delete_old_ended_secrets, 20, limit=PAGE),
    case(repository.update_ended_last_use, 60 * len(THOUSAND_USES), THOUSAND_USES),
    case(repository.delete_expired_secrets_of, 100, unit_id=SMALL_UNIT, secret_ids=[QUIET]),
    # each that it deletes, in the table and its indexes
    case(repository.delete_expired_secrets, 60 * PAGE, limit=PAGE),
    case(
        repository.update_digests, 60 * len(THOUSAND_USES),
        {each.client_secret_id: b"y" * 40 for each in THOUSAND_USES},
    ),
    case(repository.delete_client_secrets, 100, **ONE, keep=[]),
    case(repository.select_secrets, 30, client_secret_ids=[NUMBER_OF_QUIET]),
    # two for each key and client secret
    case(repository.select_secrets_by_digest, 1000, digests=HUNDRED_DIGESTS),
    case(repository.select_ended_secrets, 1000, digests=HUNDRED_DIGESTS),
    case(repository.update_leak_reported, 100, client_secret_ids=[NUMBER_OF_QUIET]),
    case(repository.delete_leaked_secrets, 100, client_secret_ids=[NUMBER_OF_QUIET]),
    case(repository.expire_client_secrets, 100, **ONE, overlap_seconds=60),
    case(repository.update_expiry, 100, client_secret_id=NUMBER_OF_QUIET, expires_at=NOW + DAY),
    case(repository.insert_client_secret, 100, secret_id=QUIET, secret=SECRET, expires_at=None),
    case(repository.insert_event, 300, CALLER, LOCKED, "updated", detail={}),
    *(
        case(repository.select_events, 2 * PAGE, **which, limit=PAGE, before=before)
        for which in (ONE, BUSY_ONE)
        for before in (None, 1000)
    ),
    case(repository.find_newest_event_time, 10),
    case(repository.select_event_keys, 1000, since=NOW + DAY),
    case(
        repository.find_survival, 20, unit_id=BIG_UNIT, position=TrailPosition(1_000_000, 500_000)
    ),
    case(repository.find_trail_window, 30, unit_id=BIG_UNIT, since=NOW - DAY, until=NOW - DAY),
    *trail(FULL_PAGE),
    *trail(FULL_PAGE, event="updated"),
    *trail(FULL_PAGE, event="issued"),
    *trail(100, event="revoked"),
    *trail(FULL_PAGE, actor="ada"),
    *trail(500, actor="rare"),
    *trail(100, actor="nobody"),
    *trail(FULL_PAGE, secret_id=BUSY),
    *trail(500, secret_id="sec_" + str(2).zfill(20)),
    *trail(FULL_PAGE, since=NOW - 100 * DAY),
    *trail(FULL_PAGE, until=NOW - 100 * DAY),
    *trail(100, since=NOW + 9 * DAY),
    *trail(100, until=NOW - 900 * DAY),
    *trail(FULL_PAGE, since=NOW - 100 * DAY, until=NOW - 99 * DAY),
    *trail(100, event="revoked", actor="ada"),
    *trail(500, event="updated", actor="rare"),
    *trail(FULL_PAGE, event="updated", actor="ada", since=NOW - 100 * DAY),
    *trail(100, event="revoked", since=NOW - 100 * DAY),
    *trail(100, event="issued", since=NOW - 2 * DAY),
    # it may look at all of the credential's 300,000 events, which lie close together
    *trail(10_000, secret_id=BUSY, event="revoked"),
    *trail(10_000, secret_id=BUSY, actor="nobody"),
    *trail(100, secret_id=BUSY, since=NOW - DAY),
    case(repository.try_lock_request, 0, lock_id=1),
    case(repository.find_stored_response, 20, key_hashes=[b"k" * 32, b"l" * 32]),
    case(repository.insert_stored_response, 100, RESPONSE, secret_id=QUIET),
    case(repository.delete_old_responses, 20, limit=PAGE),
    case(repository.find_writer, 10, writer_id=WRITER),
    case(repository.upsert_writer, 30, writer_id=WRITER),
    case(repository.update_answered, 10, writer_id=WRITER, answered=1),
    case(repository.ask_writers, 20, except_for=WRITER),
    case(repository.count_unanswered, 10, {WRITER: 1}),
    case(repository.delete_writer, 10, writer_id=WRITER),
    case(is_migrated, 10),
    # last, because the rows that they leave behind are still there for the others
    case(repository.change_unit, 60 * BIG_UNIT_SIZE, caller(BIG_UNIT), "disabled"),
    case(repository.change_unit, 60 * BIG_UNIT_SIZE, caller(BIG_UNIT), "enabled"),
    case(repository.change_unit, 60 * BIG_UNIT_SIZE, caller(BIG_UNIT), "revoked"),
]  # fmt: skip


@pytest.fixture(scope="module")
def big_database():
    with new_postgres(fsync="off", autovacuum="off", max_wal_size="4GB") as uri:
        migrate(uri)
        with closing(psycopg.connect(uri, autocommit=True)) as connection:
            fill(connection)
        yield uri


@pytest.fixture
def connection(big_database):
    with closing(ExplainingConnection.connect(big_database)) as connection:
        # a session compiles its functions once, which reads the catalogue
        psycopg.Cursor(connection).execute("SELECT trail_horizon(), trail_transaction()")
        yield connection  # nothing is committed


def test_every_function_of_the_repository_has_a_case():
    functions = {
        name
        for name, each in inspect.getmembers(repository, inspect.isfunction)
        if each.__module__.startswith(repository.__name__)
        and not name.startswith("_")
        and {"connection", "database"} & set(inspect.signature(each).parameters)
    }
    assert functions <= {each.name.partition("(")[0] for each in CASES}


@pytest.mark.parametrize("each", CASES, ids=[each.name for each in CASES])
def test_a_statement_reads_no_table_whole_and_few_pages(connection, each):
    each.call(connection)
    assert connection.statements
    for statement in connection.statements:
        assert not statement.read_whole & set(TABLES)
        assert statement.pages <= each.pages


@pytest.fixture
def uneven(empty_database):
    """A trail in which each value of a column has its own end, or no event at all.

    So the planner, who knows only how often a value occurs, expects to find it anywhere.
    """
    migrate(empty_database)
    with closing(psycopg.connect(empty_database, autocommit=True)) as connection:
        for event, actor in (("updated", "ada"), ("rotated", "bob")):
            connection.execute(
                """
                INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id)
                SELECT 'sec_1', 'unit_1', %s, %s, 'req' FROM generate_series(1, 40000)
                """,
                [event, actor],
            )
        connection.execute("VACUUM ANALYZE credential_events")
    with closing(ExplainingConnection.connect(empty_database)) as connection:
        psycopg.Cursor(connection).execute("SELECT trail_horizon(), trail_transaction()")
        yield connection


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    "only",
    [
        {"secret_id": "sec_0"},
        {"secret_id": "sec_2", "event": "updated"},
        {"actor": "ada"},
        {"actor": "bob"},
        {"actor": "nobody"},
        {"event": "updated"},
        {"event": "rotated"},
        {"event": "revoked"},
        {"event": "revoked", "actor": "ada"},
    ],
    ids=str,
)
def test_a_filter_of_an_uneven_trail_reads_few_pages(uneven, order, only):
    window = repository.find_trail_window(uneven, unit_id="unit_1", since=None, until=None)
    events = repository.select_unit_events(
        uneven,
        unit_id="unit_1",
        only=EventFilter(**only),
        order=order,
        limit=10,
        after=None,
        window=window,
    )
    assert len(events) in {0, 10}
    assert uneven.statements[-1].pages < 200
