"""The labels of the measures in the tables."""

from bench.peers import PEERS

_SERVICE = {
    "verify": "/verify, valid pairs",
    "scoped": "/verify/ingest, valid pairs",
    "restricted": "/verify/ingest, restricted pairs",
    "wrong": "/verify, wrong client secret",
    "unknown": "/verify, unknown client ID",
}
_FLOORS = {
    "hello_stock": "hello, gunicorn's worker",
    "hello_our_worker": "hello, our worker",
    "flask_stock": "bare Flask view, gunicorn's worker",
    "flask_our_worker": "bare Flask view, our worker",
    "raw_wsgi_our_worker": "raw WSGI, our worker",
    "pgbench": "the SELECT alone, pgbench",
}
_PEERS = {peer.name: peer.title for peer in PEERS}

# the contenders in the comparison of verifications
VERIFIERS = _SERVICE | _FLOORS | _PEERS

_OTHERS = {
    "verify_1k": "/verify, 1,000 credentials",
    "verify_100k": "/verify, 100,000 credentials",
    "verify_1m": "/verify, 1,000,000 credentials",
    "verify_10m": "/verify, 10,000,000 credentials",
    "issue": "POST /secrets",
    "bcrypt": "bcrypt alone",
    "list_10": "GET /secrets, 10 credentials",
    "list_100": "GET /secrets, 100 credentials",
    "list_1000": "GET /secrets, 1,000 credentials",
    "json_agg_10": "json_agg of 10 rows",
    "json_agg_100": "json_agg of 100 rows",
    "json_agg_1000": "json_agg of 1,000 rows",
}

_LABELS = VERIFIERS | _OTHERS


def label(measure: str) -> str:
    """Return the label of a measure, with the number of its processes and connections."""
    contender, _, connections = measure.partition("@")
    parts = []
    if contender.endswith("_processes"):
        contender, count, _ = contender.rsplit("_", 2)
        parts.append(_counted(count, "process", "processes"))
    if connections:
        parts.append(_counted(connections, "connection", "connections"))
    return ", ".join([_LABELS[contender], *parts])


def figure(number: float | None) -> str:
    """Return the number to three digits or more, or nothing for None."""
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _counted(count: str, one: str, many: str) -> str:
    return f"{count} {one if count == '1' else many}"
