from dataclasses import asdict, dataclass

from app.credentials import repository
from app.credentials.generator import (
    generate_client_id,
    generate_client_secret,
    generate_secret_id,
)
from app.credentials.hashing import Hasher
from app.credentials.model import Credential, IssuedCredential, Origin
from app.database import Database

_HINT_LENGTH = 4


@dataclass(frozen=True, slots=True)
class CredentialService:
    """What can be done with credentials: the contract's verbs.

    Every method may raise DatabaseUnavailable, and then has changed nothing that it told of.
    """

    database: Database
    hasher: Hasher

    def issue(self, *, unit_id: str, name: str, origin: Origin) -> IssuedCredential:
        """Make a credential for the unit, and hand out its client secret this once.

        `name` is as `parse_name` returns it.
        """
        client_secret = generate_client_secret()
        secret_hash = self.hasher.hash(client_secret)
        with self.database.connection() as connection:
            credential = repository.insert_credential(
                connection,
                secret_id=generate_secret_id(),
                unit_id=unit_id,
                client_id=generate_client_id(),
                name=name,
                secret_hash=secret_hash,
                digest=self.hasher.digest(client_secret),
                hint=client_secret[-_HINT_LENGTH:],
                origin=origin,
            )
        return IssuedCredential(**asdict(credential), client_secret=client_secret)

    def list(self, *, unit_id: str) -> list[Credential]:
        """Return the unit's credentials, newest first."""
        with self.database.connection() as connection:
            return repository.select_credentials(connection, unit_id=unit_id)
