"""`make bench`: the speed of `/verify`, as ratios within one run.

It compares `/verify` with a bare Flask view that does the same SELECT (`bench/baseline.py`),
invalid pairs with valid ones, and a million credentials with a thousand. Rounds alternate, so that
other load on the machine affects all targets alike. It needs wrk, and takes about three minutes.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from app.credentials.generator import generate_client_id, generate_client_secret
from app.credentials.hashing import Hasher
from app.database.migrations import migrate
from app.dev.keys import AUDIENCE, ISSUER, DevelopmentKeys, development_keys
from app.dev.postgres import embedded_postgres
from app.places import Workload

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "var" / "bench.json"

SIZES = {"1k": 1_000, "100k": 100_000, "1m": 1_000_000}
PAIRS = 500
ROUNDS = 5
SECONDS = 4
CONNECTIONS = 8


@dataclass(frozen=True)
class Measure:
    """The result that wrk reports for one round."""

    requests_per_second: float
    p99_ms: float


@dataclass(frozen=True)
class Target:
    """A server, and the wrk script with the requests for it."""

    port: int
    script: Path


def main() -> None:
    if shutil.which("wrk") is None:
        sys.exit("make bench: wrk is not installed (apt-get install wrk)")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lv-bench-")))
        uri = stack.enter_context(embedded_postgres(directory / "data"))
        targets = start_targets(stack, directory, uri)
        measures = measure_in_turns(targets)
    result = ratios(measures)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name, rounds in measures.items():
        rate = statistics.median(each.requests_per_second for each in rounds)
        p99 = statistics.median(each.p99_ms for each in rounds)
        print(f"{name:10} {rate:8.0f} requests/s   p99 {p99:6.2f} ms")
    print(json.dumps(result, indent=2))


def start_targets(stack: ExitStack, directory: Path, uri: str) -> dict[str, Target]:
    keys = development_keys(directory / "keys")
    hasher = Hasher(10, [b64decode(keys.digest_key)], Workload.for_verifiers(1))
    good, refused, baseline = {}, {}, {}
    for size, count in SIZES.items():
        database_url = uri.replace("/postgres?", f"/bench_{size}?")
        pairs = fill(uri, database_url, count, hasher)
        wrong = [(client_id, generate_client_secret()) for client_id, _ in pairs]
        good[size] = write_script(directory / f"good_{size}.lua", pairs)
        refused[size] = write_script(directory / f"refused_{size}.lua", wrong)
        baseline[size] = database_url

    def serve(application: str, size: str) -> int:
        return stack.enter_context(serving(application, baseline[size], keys))

    service = serve("wsgi:app", "100k")
    return {
        "baseline": Target(serve("bench.baseline:app", "100k"), good["100k"]),
        "verify": Target(service, good["100k"]),
        "refused": Target(service, refused["100k"]),
        "verify_1k": Target(serve("wsgi:app", "1k"), good["1k"]),
        "verify_1m": Target(serve("wsgi:app", "1m"), good["1m"]),
    }


def database_name(database_url: str) -> str:
    return conninfo_to_dict(database_url)["dbname"]


def fill(uri: str, database_url: str, count: int, hasher: Hasher) -> list[tuple[str, str]]:
    """Make a database with `count` credentials, and return some of its valid pairs."""
    name = database_name(database_url)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    migrate(database_url)
    pairs = [(generate_client_id(), generate_client_secret()) for _ in range(PAIRS)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO credentials (secret_id, unit_id, client_id, name)
            SELECT 'sec_' || left(md5('s' || n), 20), 'unit_' || mod(n, 1000),
                   'lv_ci_' || left(md5('c' || n), 20), 'Backend ' || n
            FROM generate_series(1, %s) AS n
            """,
            (count - PAIRS,),
        )
        connection.cursor().executemany(
            """
            INSERT INTO credentials (secret_id, unit_id, client_id, name)
            VALUES (replace(%(id)s, 'lv_ci_', 'sec_'), 'unit_bench', %(id)s, 'Backend')
            """,
            [{"id": client_id} for client_id, _ in pairs],
        )
        connection.execute(
            """
            INSERT INTO client_secrets (secret_id, secret_hash, digest, hint)
            SELECT secret_id, '$2b$10$' || repeat('.', 53),
                   sha256(secret_id::bytea) || '\\x0000000000000000'::bytea, 'none'
            FROM credentials
            """
        )
        connection.cursor().executemany(
            """
            UPDATE client_secrets SET digest = %(digest)s
            WHERE secret_id = replace(%(id)s, 'lv_ci_', 'sec_')
            """,
            [{"id": client_id, "digest": hasher.digest(secret)} for client_id, secret in pairs],
        )
        connection.execute("VACUUM ANALYZE")
    return pairs


def write_script(path: Path, pairs: list[tuple[str, str]]) -> Path:
    """Write a wrk script that sends the pairs in turn."""
    requests = [
        f'{{["Authorization"]="{basic(client_id, secret)}", ["X-Client-Id"]="{client_id}"}}'
        for client_id, secret in pairs
    ]
    path.write_text(
        "local headers = {\n" + ",\n".join(requests) + "\n}\nlocal turn = 0\n"
        "function request()\n"
        "  turn = turn % #headers + 1\n"
        '  return wrk.format("GET", "/verify", headers[turn])\n'
        "end\n"
    )
    return path


def basic(client_id: str, client_secret: str) -> str:
    return "Basic " + b64encode(f"{client_id}:{client_secret}".encode()).decode()


@contextmanager
def serving(application: str, database_url: str, keys: DevelopmentKeys) -> Iterator[int]:
    """Run an application under gunicorn with the service's own settings; yield its port."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "JWT_PUBLIC_KEY_FILE": str(keys.public_key_file),
        "JWT_ISSUER": ISSUER,
        "JWT_AUDIENCE": AUDIENCE,
        "DIGEST_KEY": keys.digest_key,
        "PORT": str(port),
        # the kernel spreads kept-alive connections unevenly over several processes
        "WEB_CONCURRENCY": "1",
    }
    # the service's own number of threads is for kinds of work that the baseline does not have
    arguments = [] if application == "wsgi:app" else ["--threads=4"]
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", application, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        await_answer(port)
        yield port
        workers = psutil.Process(server.pid).children()
        memory = max(worker.memory_info().rss for worker in workers) // 2**20
        print(f"{application} on {database_name(database_url)}: {memory} MiB a worker")
    finally:
        server.terminate()
        server.wait(40)


def await_answer(port: int) -> None:
    deadline = monotonic() + 20
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/nothing", timeout=1)
        except URLError as error:
            if getattr(error, "code", None) == 404:
                return
        if monotonic() > deadline:
            sys.exit("make bench: a server did not start")
        sleep(0.1)


def measure_in_turns(targets: dict[str, Target]) -> dict[str, list[Measure]]:
    for target in targets.values():
        measure(target, seconds=2)  # warms up connections, prepared statements and caches
    measures: dict[str, list[Measure]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, target in targets.items():
            measures[name].append(measure(target, seconds=SECONDS))
    return measures


def measure(target: Target, *, seconds: int) -> Measure:
    output = subprocess.check_output(
        [
            "wrk",
            "--threads=1",
            f"--connections={CONNECTIONS}",
            f"--duration={seconds}s",
            "--latency",
            f"--script={target.script}",
            f"http://127.0.0.1:{target.port}",
        ],
        text=True,
    )
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    p99 = re.search(r"99% +([\d.]+)(us|ms|s)", output)
    if rate is None or p99 is None:
        sys.exit(f"make bench: wrk printed\n{output}")
    unit = {"us": 0.001, "ms": 1, "s": 1000}[p99[2]]
    return Measure(float(rate[1]), float(p99[1]) * unit)


def ratios(measures: dict[str, list[Measure]]) -> dict[str, float]:
    """Return each ratio's median over the rounds. A ratio compares two measures of one round."""

    def ratio(attribute: str, one: str, other: str) -> float:
        pairs = zip(measures[one], measures[other], strict=True)
        return round(
            statistics.median(getattr(a, attribute) / getattr(b, attribute) for a, b in pairs), 3
        )

    return {
        "verify_vs_baseline": ratio("requests_per_second", "verify", "baseline"),
        "verify_p99_vs_baseline": ratio("p99_ms", "verify", "baseline"),
        "refused_vs_good": ratio("requests_per_second", "refused", "verify"),
        "verify_1m_vs_1k": ratio("requests_per_second", "verify_1m", "verify_1k"),
    }


if __name__ == "__main__":
    main()
