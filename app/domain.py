"""The objects that work on credentials, for every door."""

from dataclasses import dataclass
from typing import Self

from app.bulkheads import Bulkheads
from app.credentials.background import BackgroundWriter
from app.credentials.hashing import Hasher
from app.credentials.idempotency import Idempotency, ResponseCipher
from app.credentials.leaks import LeakService
from app.credentials.management import CredentialService
from app.credentials.verification import Verifier
from app.database.pool import Database
from app.rate_limits import UNLIMITED, RateLimit
from app.settings import CredentialSettings


@dataclass(frozen=True, slots=True)
class Domain:
    """What can be done with credentials. The writer is still closed: then no use is recorded."""

    credentials: CredentialService
    verifier: Verifier
    leaks: LeakService
    writer: BackgroundWriter

    @classmethod
    def from_settings(  # noqa: PLR0913  each is one of the objects that the domain works with
        cls,
        settings: CredentialSettings,
        database: Database,
        bulkheads: Bulkheads,
        *,
        issue_limit: RateLimit = UNLIMITED,
        change_limit: RateLimit = UNLIMITED,
        failure_limit: RateLimit = UNLIMITED,
        report_limit: RateLimit = UNLIMITED,
    ) -> Self:
        """Make the domain, by default without rate limits, as operators use it."""
        hasher = Hasher(settings.bcrypt_rounds, settings.digest_keys, bulkheads)
        writer = BackgroundWriter(database, bulkheads.background)
        credentials = CredentialService(
            database=database,
            hasher=hasher,
            writer=writer,
            events_written=writer.events_written,
            idempotency=Idempotency(ResponseCipher(settings.digest_keys)),
            bulkheads=bulkheads,
            issue_limit=issue_limit,
            change_limit=change_limit,
            max_credentials=settings.max_credentials_per_unit,
            max_secret_days=settings.max_secret_days,
            scopes=frozenset(settings.scopes),
            default_scopes=settings.default_scopes,
        )
        return cls(
            credentials,
            Verifier(
                database=database,
                hasher=hasher,
                writer=writer,
                bulkheads=bulkheads,
                failure_limit=failure_limit,
                scopes=frozenset(settings.scopes),
            ),
            LeakService(
                database=database,
                hasher=hasher,
                seconds=bulkheads.public.seconds,
                report_limit=report_limit,
                events_written=writer.events_written,
            ),
            writer,
        )
