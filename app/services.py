"""The objects that a process of the service holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.bulkheads import Bulkheads
from app.counters import Histogram
from app.credentials.background import BackgroundWriter
from app.credentials.leaks import LeakService
from app.credentials.management import CredentialService
from app.credentials.verification import Verifier
from app.database.pool import Database
from app.domain import Domain
from app.identity.key_sources import KeyFile, KeySource, KeyUrl
from app.identity.tokens import Claims, TokenVerifier
from app.metrics.directory import WorkerFiles
from app.metrics.publisher import Metrics
from app.metrics.requests import BUCKETS, RequestKind
from app.rate_limits import Counters, MemoryCounters, RateLimit
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that views use. Open it after the fork, and close it when the process stops."""

    database: Database
    bulkheads: Bulkheads
    keys: KeySource
    counters: Counters
    credentials: CredentialService
    verifier: Verifier
    leaks: LeakService
    writer: BackgroundWriter
    tokens: TokenVerifier
    ends_leaked: bool  # whether a client secret that is reported as leaked ends
    manager_roles: frozenset[str]  # empty if everyone may change credentials
    request_durations: Histogram[RequestKind]
    metrics: Metrics

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the services, still closed: a connection must not cross the fork."""
        bulkheads = Bulkheads.for_verifiers(settings.threads)
        database = Database(settings.database_url, connections=bulkheads.connections)
        keys = _key_source(settings, bulkheads)
        counters = _counters(settings)
        domain = Domain.from_settings(
            settings,
            database,
            bulkheads,
            issue_limit=RateLimit("issues", settings.issue_limit, counters),
            change_limit=RateLimit("changes", settings.change_limit, counters),
            failure_limit=RateLimit("verify failures", settings.verify_failure_limit, counters),
            report_limit=RateLimit("leak reports", settings.verify_failure_limit, counters),
        )
        request_durations: Histogram[RequestKind] = Histogram(BUCKETS)
        return cls(
            database=database,
            bulkheads=bulkheads,
            keys=keys,
            counters=counters,
            credentials=domain.credentials,
            verifier=domain.verifier,
            leaks=domain.leaks,
            writer=domain.writer,
            tokens=TokenVerifier(
                keys,
                algorithms=settings.jwt_algorithms,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                claims=settings.jwt_claims,
            ),
            ends_leaked=settings.leak_reports == "end",
            manager_roles=settings.jwt_manager_roles,
            request_durations=request_durations,
            metrics=Metrics(
                database=database,
                bulkheads=bulkheads,
                keys=keys,
                credentials=domain.credentials,
                request_durations=request_durations,
            ),
        )

    def may_change(self, claims: Claims) -> bool:
        """Tell whether the token's bearer may change credentials."""
        return not self.manager_roles or not self.manager_roles.isdisjoint(claims.roles)

    def open(self, files: WorkerFiles | None = None) -> None:
        """Start the background work: connect to the database and fetch keys.

        With `files`, the metrics are those of all processes that share their directory.
        """
        self.database.open()
        self.keys.open()
        self.counters.open()
        self.writer.open()
        self.metrics.open(files)

    def close(self) -> None:
        """Stop the background work, write what is pending, and close the connections."""
        self.writer.close()
        self.metrics.close()
        self.keys.close()
        self.counters.close()
        self.database.close()


def _key_source(settings: Settings, bulkheads: Bulkheads) -> KeySource:
    if isinstance(settings.jwt_keys, Path):
        return KeyFile(settings.jwt_keys, settings.jwt_algorithms)
    return KeyUrl(settings.jwt_keys, settings.jwt_algorithms, bulkheads.key_fetch)


def _counters(settings: Settings) -> Counters:
    if settings.ratelimit_storage_url == "memory://":
        return MemoryCounters()
    # it imports so much that only those who use Redis should wait for it
    from app.redis_counters import RedisCounters  # noqa: PLC0415

    return RedisCounters(settings.ratelimit_storage_url, settings.digest_keys[0])
