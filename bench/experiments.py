"""The experiments. Each starts its servers, and yields the targets to measure in turn.

The name of a measure is the contender, an `@` and the number of connections.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from bench.data import add_restricted, add_unit, create_database, libpq_variables
from bench.load import HttpTarget, Request, Requests
from bench.measures import Target, Targets
from bench.peers import PEERS
from bench.plan import Plan
from bench.servers import ROOT, Command, Server, serving
from bench.stage import Stage, for_floors, good, scoped, unknown, wrong
from bench.targets.statements import STORED_SECRETS
from bench.work import (
    PgbenchTarget,
    WorkTarget,
    find_pgbench,
    hash_by_bcrypt,
    issuing,
    lower_priority,
)

Experiment = Callable[[Stage, Plan], AbstractContextManager[Targets]]

_CORES = os.cpu_count() or 1
_LISTED_UNIT = "unit_listed"
_ISSUING_UNITS = ("unit_issues", "unit_issues_too")  # one alone has half of the slots (ADR 26)


@dataclass(frozen=True)
class Contender:
    """A server and the requests it gets. Contenders with one command share one server."""

    name: str
    command: Command
    requests: Requests


@contextmanager
def verification(stage: Stage, plan: Plan) -> Iterator[Targets]:
    """`/verify` against floors and peers, on 100,000 credentials, with one process each."""
    database = stage.credentials("100k", 100_000)
    restricted = add_restricted(database, stage.hasher)
    service = stage.service(database.url)
    lookup, hello = for_floors(database), for_floors(database, contains="hello")
    contenders = [
        Contender("verify", service, good(database)),
        Contender("scoped", service, scoped(database)),
        Contender("restricted", service, scoped(restricted, "restricted")),
        Contender("flask_stock", stage.on_stock_worker("flask_view", database.url), lookup),
        Contender("wrong", service, wrong(database)),
        Contender("unknown", service, unknown(database)),
        Contender("flask_our_worker", stage.on_our_worker("flask_view", database.url), lookup),
        Contender("raw_wsgi_our_worker", stage.on_our_worker("raw_wsgi", database.url), lookup),
        Contender("hello_stock", stage.on_stock_worker("hello", database.url), hello),
        Contender("hello_our_worker", stage.hello_in_our_loop(database.url), hello),
    ]
    if plan.is_whole:
        contenders += _peers(stage)
    with _serving(stage, plan, contenders, plan.connections) as targets:
        yield {**targets, **_pgbench(stage, plan, database.url)}


@contextmanager
def sizes(stage: Stage, plan: Plan) -> Iterator[Targets]:
    """`/verify` on databases of several sizes."""
    databases = {name: stage.credentials(name, count) for name, count in plan.sizes.items()}
    contenders = [
        Contender(f"verify_{name}", stage.service(database.url), good(database))
        for name, database in databases.items()
    ]
    with _serving(stage, plan, contenders, [8]) as targets:
        yield targets


@contextmanager
def processes(stage: Stage, plan: Plan) -> Iterator[Targets]:
    """`/verify` with one process and with two."""
    database = stage.credentials("100k", 100_000)
    contenders = [
        Contender(f"{name}_{count}_processes", command, requests)
        for count in (1, 2)
        for service in [stage.service(database.url, processes=count)]
        for name, command, requests in [
            ("verify", service, good(database)),
            ("wrong", service, wrong(database)),
            ("unknown", service, unknown(database)),
            (
                "flask_stock",
                stage.on_stock_worker("flask_view", database.url, processes=count),
                for_floors(database),
            ),
        ]
    ]
    with _serving(stage, plan, contenders, [8, 64]) as targets:
        yield targets


@contextmanager
def issues(stage: Stage, _: Plan) -> Iterator[Targets]:
    """`POST /secrets` against bcrypt alone, both on all cores."""
    database = stage.credentials("issues", 1_000)
    tokens = [stage.keys.sign(unit_id=each) for each in _ISSUING_UNITS]
    with serving(stage.service(database.url, processes=_CORES)) as server:
        yield {
            # enough requests under way that each process always has one
            "issue": WorkTarget(issuing(server, tokens), 4 * _CORES, server),
            "bcrypt": WorkTarget(hash_by_bcrypt, _CORES, prepare=lower_priority),
        }


@contextmanager
def lists(stage: Stage, plan: Plan) -> Iterator[Targets]:
    """`GET /secrets` against the same list, made by Postgres' json_agg."""
    database = stage.credentials("lists", 1_000)
    service = stage.service(database.url)
    json_agg = stage.on_stock_worker("json_agg", database.url)
    contenders = []
    for length in plan.lists:
        unit_id = f"unit_list_{length}"
        add_unit(database.url, unit_id, length)
        last_name = f'"Backend {length}"'
        token = {"Authorization": f"Bearer {stage.keys.sign(unit_id=unit_id)}"}
        ours = Requests(f"list-{length}", [Request("/secrets", token)], contains=last_name)
        theirs = Requests(
            f"list-{length}", [Request("/list", {"X-Unit-Id": unit_id})], contains=last_name
        )
        contenders += [
            Contender(f"list_{length}", service, ours),
            Contender(f"json_agg_{length}", json_agg, theirs),
        ]
    with _serving(stage, plan, contenders, [8]) as targets:
        yield targets


@contextmanager
def versions(stage: Stage, plan: Plan) -> Iterator[Targets]:
    """`/verify` and lists, this version against the one in BEFORE, on 100,000 credentials."""
    before = plan.before or ROOT
    here, there = stage.credentials("100k", 100_000), stage.credentials_of(before, 100_000)
    of_both = [
        ("", here, stage.service(here.url)),
        ("_before", there, stage.service_of(before, there.url)),
    ]
    for _, database, _ in of_both:
        add_unit(database.url, _LISTED_UNIT, 1_000)
    token = {"Authorization": f"Bearer {stage.keys.sign(unit_id=_LISTED_UNIT)}"}
    page = Requests("list", [Request("/secrets", token)], contains='"Backend 1000"')
    contenders = [
        Contender(name + suffix, service, requests)
        for suffix, database, service in of_both
        for name, requests in [
            ("verify", good(database)),
            ("wrong", wrong(database)),
            ("unknown", unknown(database)),
            ("list_1000", page),
        ]
    ]
    with _serving(stage, plan, contenders, plan.connections) as targets:
        yield targets


def experiments(plan: Plan) -> list[Experiment]:
    """Return the experiments of the run, in order."""
    if plan.before is not None:
        return [versions]
    return [verification, sizes, *([processes] if plan.is_whole else []), issues, lists]


@contextmanager
def _serving(
    stage: Stage, plan: Plan, contenders: Iterable[Contender], connections: Iterable[int]
) -> Iterator[Targets]:
    """Start the servers that the plan includes, and yield their targets, ordered for comparison."""
    servers: dict[str, Server] = {}
    targets: dict[str, Target] = {}
    with ExitStack() as stack:
        for count in connections:
            for contender in contenders:
                name, command = f"{contender.name}@{count}", contender.command
                if not plan.includes(name):
                    continue
                if command.name not in servers:
                    servers[command.name] = stack.enter_context(serving(command))
                targets[name] = HttpTarget(
                    servers[command.name], contender.requests, count, stage.directory
                )
        yield targets


def _peers(stage: Stage) -> list[Contender]:
    contenders = []
    for peer in PEERS:
        print(f"Preparing {peer.title} …", flush=True)
        peer.install()
        database_url = create_database(stage.server_url, f"bench_{peer.name}")
        keys = peer.fill(database_url)
        contenders.append(Contender(peer.name, peer.command(database_url), peer.requests(keys)))
    return contenders


def _pgbench(stage: Stage, plan: Plan, database_url: str) -> dict[str, Target]:
    """Return the SELECT in Postgres alone, if the plan includes it and pgbench is installed."""
    pgbench = find_pgbench()
    if pgbench is None:
        print("pgbench is missing (apt-get install postgresql): Postgres alone is left out.")
        return {}
    script = stage.directory / "select.sql"
    client_id = "'lv_ci_' || left(md5('c' || :n), 20)"  # as bench/data.py makes them up
    statement = STORED_SECRETS.replace("%(client_id)s", client_id)
    script.write_text(f"\\set n random(1, 500)\n{' '.join(statement.split())};\n")
    return {
        f"pgbench@{connections}": PgbenchTarget(
            pgbench, libpq_variables(database_url), script, connections
        )
        for connections in (1, 8)  # Postgres accepts a hundred in all, and the servers keep theirs
        if plan.includes(f"pgbench@{connections}")
    }
