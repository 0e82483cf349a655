"""`make token`: print a development token and nothing else."""

import os
import sys
from pathlib import Path

from app.dev.keys import (
    AUDIENCE,
    ISSUER,
    ROLE,
    ROLE_CLAIM,
    InvalidUnit,
    development_keys,
    unit_from_environment,
)


def main() -> None:
    try:
        unit_id = unit_from_environment()
    except InvalidUnit as reason:
        print(reason, file=sys.stderr)
        sys.exit(2)
    keys = development_keys(Path(sys.argv[1]) / "keys")
    print(
        keys.sign(
            unit_id=unit_id,
            issuer=os.environ.get("JWT_ISSUER", ISSUER),
            audience=os.environ.get("JWT_AUDIENCE", AUDIENCE),
            role_claim=os.environ.get("JWT_ROLE_CLAIM", ROLE_CLAIM),
            role=os.environ.get("ROLE", _manager_role()),
        )
    )


def _manager_role() -> str:
    """Return the role that `make run` gives its own token under the same settings."""
    roles = [role.strip() for role in os.environ.get("JWT_MANAGER_ROLES", ROLE).split(",")]
    return min(roles)


if __name__ == "__main__":
    main()
