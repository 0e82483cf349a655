"""Endings: once a change is answered, neither process accepts what it ended."""

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, RemoteDisconnected
from json import dumps
from time import monotonic

from app.bulkheads import Bulkheads
from app.credentials.generator import generate_client_secret
from app.credentials.hashing import Hasher
from drills.bars import Bar, none_of, within_ms
from drills.service import CannotRun, Issued, Service, Testbed, bearer, new_digest_key
from tests.helpers import basic

_CALLERS = 4
_CONNECTIONS = 4  # of each caller, so that both processes are asked


def nothing_works_after_its_end(testbed: Testbed, *, endings: int = 10_000) -> list[Bar]:
    """10,000 credentials are ended in three ways, and each is verified immediately afterwards."""
    with testbed.serve() as service:
        previous = service.issue()
        newest = _rotate(service, previous)
        secret_ids = service.database.clone_credential(
            previous.secret_id, copies=endings, secrets=True
        )
        with ThreadPoolExecutor(_CALLERS) as pool:
            callers = [
                pool.submit(_end_all, service, previous, newest, secret_ids[number::_CALLERS])
                for number in range(_CALLERS)
            ]
            results = [caller.result() for caller in callers]
    accepted, refused, failed = (sum(each) for each in zip(*results, strict=True))
    return [
        none_of("accepted after its end", accepted, endings),
        none_of("valid, and refused", refused, endings),
        none_of("changes not 204", failed, endings),
    ]


def nothing_works_after_its_report(testbed: Testbed, *, endings: int = 10_000) -> list[Bar]:
    """10,000 client secrets are reported as leaked, 100 at once, and verified immediately after."""
    key = new_digest_key()
    hasher = Hasher(10, [b64decode(key)], Bulkheads.for_verifiers(1))
    with testbed.serve(LEAK_REPORTS="end", VERIFY_FAILURE_LIMIT="0", DIGEST_KEY=key) as service:
        secret_ids = service.database.clone_credential(
            service.issue().secret_id, copies=endings, secrets=True
        )
        client_secrets = {each: generate_client_secret() for each in secret_ids}
        with service.database.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE client_secrets SET digest = %s WHERE secret_id = %s",
                [(hasher.digest(secret), each) for each, secret in client_secrets.items()],
            )
        connections = [
            HTTPConnection("127.0.0.1", service.port, timeout=20) for _ in range(1 + _CONNECTIONS)
        ]
        reporting, *verifying = connections
        headers = {"Content-Type": "application/json"}
        refused = accepted = failed = 0
        slowest = 0.0
        for start in range(0, endings, 100):
            leaked = secret_ids[start : start + 100]
            pairs = [basic(each.replace("sec_", "lv_ci_"), client_secrets[each]) for each in leaked]
            refused += sum(_ask(verifying[0], "GET", "/verify", each) != 200 for each in pairs)
            body = dumps([{"token": client_secrets[each]} for each in leaked])
            started_at = monotonic()
            failed += _ask(reporting, "POST", "/leaks", headers, body) != 202
            slowest = max(slowest, monotonic() - started_at)
            accepted += sum(
                _ask(verifying[n % _CONNECTIONS], "GET", "/verify", each) == 200
                for n, each in enumerate(pairs)
            )
        for each in connections:
            each.close()
    return [
        none_of("accepted after its report", accepted, endings),
        none_of("valid, and refused", refused, endings),
        none_of("reports not 202", failed, endings // 100),
        within_ms("slowest report of 100", slowest, 200, noisy=True),
    ]


def _rotate(service: Service, issued: Issued) -> str:
    reply = service.request(
        "POST", f"/secrets/{issued.secret_id}/rotate", {}, **bearer(issued.token)
    )
    if reply.status != 200:
        raise CannotRun(f"rotate: {reply.status} {reply.body!r}")
    return str(reply.json()["client_secret"])


def _end_all(
    service: Service, previous: Issued, newest: str, secret_ids: list[str]
) -> tuple[int, int, int]:
    """End each credential in one of three ways; count what was accepted, refused, and failed."""
    connections = [
        HTTPConnection("127.0.0.1", service.port, timeout=20) for _ in range(1 + _CONNECTIONS)
    ]
    changing, *verifying = connections
    accepted = refused = failed = 0
    token = bearer(previous.token)
    hint = previous.client_secret[-4:]
    for number, secret_id in enumerate(secret_ids):
        client_id = secret_id.replace("sec_", "lv_ci_")
        ending, staying = basic(client_id, previous.client_secret), basic(client_id, newest)
        refused += _ask(verifying[0], "GET", "/verify", ending) != 200
        path = f"/secrets/{secret_id}"
        if number % 3 == 0:
            status = _ask(changing, "DELETE", path, token)
        elif number % 3 == 1:
            body = dumps({"trust_upstream_consent": False, "enabled": False})
            status = _ask(changing, "PUT", path, token, body)
        else:
            status = _ask(changing, "DELETE", f"{path}/secrets/{hint}", token)
        failed += status != 204
        accepted += sum(_ask(each, "GET", "/verify", ending) == 200 for each in verifying)
        works = _ask(verifying[0], "GET", "/verify", staying) == 200
        accepted += works and number % 3 != 2
        refused += not works and number % 3 == 2
    for connection in connections:
        connection.close()
    return accepted, refused, failed


def _ask(
    connection: HTTPConnection, method: str, path: str, headers: dict[str, str], body: str = ""
) -> int:
    typed = {"Content-Type": "application/json"} if body else {}
    for _ in range(2):
        try:
            connection.request(method, path, body or None, headers | typed)
            response = connection.getresponse()
            response.read()
        except (RemoteDisconnected, ConnectionResetError):
            connection.close()  # it was idle for too long; once more
        else:
            return response.status
    return 0
