"""The objects that a process of the service holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.credentials.answers import AnswerSeal
from app.credentials.deferred import DeferredWrites
from app.credentials.hashing import Hasher
from app.credentials.service import CredentialService
from app.database.pool import Database
from app.identity.key_sources import KeyFile, KeySource, KeyUrl
from app.identity.tokens import Claims, TokenVerifier
from app.metrics.directory import Share
from app.metrics.publisher import Metrics
from app.metrics.requests import BUCKETS, RequestKind
from app.places import Workload
from app.rate_limits import RateLimit
from app.settings import CredentialSettings, Settings
from app.tallies import Durations

# All failures share this many counters. A client that fails and shares its counter with a flood
# gets 429 instead of 401, so it is refused either way.
_FAILURE_COUNTERS = 4096


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that views use. Open it after the fork, and close it when the process stops."""

    database: Database
    workload: Workload
    keys: KeySource
    credentials: CredentialService
    tokens: TokenVerifier
    manager_roles: frozenset[str]  # empty if everyone may change credentials
    verify_failures: RateLimit
    issues: RateLimit
    requests: Durations[RequestKind]
    metrics: Metrics

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the services, still closed: a connection must not cross the fork."""
        workload = Workload.for_verifiers(settings.threads)
        database = Database(settings.database_url, connections=workload.connections)
        keys = _key_source(settings, workload)
        credentials = make_credential_service(settings, database, workload)
        requests: Durations[RequestKind] = Durations(BUCKETS)
        return cls(
            database=database,
            keys=keys,
            workload=workload,
            credentials=credentials,
            tokens=TokenVerifier(
                keys,
                algorithms=settings.jwt_algorithms,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                claims=settings.jwt_claims,
            ),
            manager_roles=settings.jwt_manager_roles,
            verify_failures=RateLimit(
                "verify failures",
                settings.verify_failure_limit,
                settings.ratelimit_storage_url,
                counters=_FAILURE_COUNTERS,
            ),
            issues=RateLimit("issues", settings.issue_limit, settings.ratelimit_storage_url),
            requests=requests,
            metrics=Metrics(
                database=database,
                workload=workload,
                keys=keys,
                credentials=credentials,
                requests=requests,
            ),
        )

    def may_change(self, claims: Claims) -> bool:
        """Tell whether the token's bearer may change credentials."""
        return not self.manager_roles or not self.manager_roles.isdisjoint(claims.roles)

    def open(self, share: Share | None = None) -> None:
        """Start the background work: connect to the database and fetch keys.

        With a share, the metrics are those of all processes that share its directory.
        """
        self.database.open()
        self.keys.open()
        self.credentials.deferred.open()
        self.metrics.open(share)

    def close(self) -> None:
        """Stop the background work, write what is pending, and close the connections."""
        self.metrics.close()
        self.keys.close()
        self.credentials.deferred.close()
        self.database.close()


def make_credential_service(
    settings: CredentialSettings, database: Database, workload: Workload
) -> CredentialService:
    """Make the domain's service."""
    return CredentialService(
        database=database,
        hasher=Hasher(settings.bcrypt_rounds, settings.digest_keys, workload),
        deferred=DeferredWrites(database, workload.background),
        seal=AnswerSeal(settings.digest_keys),
        workload=workload,
        max_credentials=settings.max_credentials_per_unit,
        max_secret_days=settings.max_secret_days,
    )


def _key_source(settings: Settings, workload: Workload) -> KeySource:
    if isinstance(settings.jwt_keys, Path):
        return KeyFile(settings.jwt_keys, settings.jwt_algorithms)
    return KeyUrl(settings.jwt_keys, settings.jwt_algorithms, workload.key_fetch)
