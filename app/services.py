"""What a process of the service holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.credentials.hashing import Hasher
from app.credentials.service import CredentialService
from app.credentials.usage import UsageRecorder
from app.database.pool import Database
from app.identity.key_sources import KeyFile, KeySource, KeyUrl
from app.identity.tokens import TokenVerifier
from app.rate_limits import FailureLimit
from app.settings import CredentialSettings, Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that views use. Open it after the fork, and close it when the process stops."""

    database: Database
    credentials: CredentialService
    tokens: TokenVerifier
    verify_failures: FailureLimit

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the services. They are closed at first: a connection must not cross the fork."""
        # one connection for each thread, and one to record last uses in the background
        database = Database(settings.database_url, connections=settings.threads + 1)
        return cls(
            database=database,
            credentials=make_credential_service(settings, database, threads=settings.threads),
            tokens=TokenVerifier(
                _key_source(settings),
                algorithms=settings.jwt_algorithms,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
            ),
            verify_failures=FailureLimit(
                settings.verify_failure_limit, settings.ratelimit_storage_url
            ),
        )

    def open(self) -> None:
        """Start to connect to the database, in the background."""
        self.database.open()

    def close(self) -> None:
        """Write the last uses that are still in memory, and close the connections."""
        self.credentials.usage.flush()
        self.database.close()


def make_credential_service(
    settings: CredentialSettings, database: Database, *, threads: int = 1
) -> CredentialService:
    """Make the domain's service, for a process with so many threads."""
    hasher = Hasher(settings.bcrypt_rounds, settings.digest_key, threads=threads)
    return CredentialService(database, hasher, UsageRecorder(database))


def _key_source(settings: Settings) -> KeySource:
    if isinstance(settings.jwt_keys, Path):
        return KeyFile(settings.jwt_keys, settings.jwt_algorithms)
    return KeyUrl(settings.jwt_keys, settings.jwt_algorithms)
