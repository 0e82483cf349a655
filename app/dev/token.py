"""`make token`: print a development token and nothing else."""

import os
import sys
from pathlib import Path

from app.dev.keys import (
    AUDIENCE,
    CLAIMS,
    ISSUER,
    ROLE,
    InvalidUnit,
    development_keys,
    unit_from_environment,
)
from app.identity.claim_paths import ClaimPath, ClaimPaths


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
            claims=ClaimPaths(
                unit=_claim("JWT_UNIT_CLAIM", CLAIMS.unit),
                units=CLAIMS.units,
                role=_claim("JWT_ROLE_CLAIM", CLAIMS.role),
            ),
            role=os.environ.get("ROLE", _manager_role()),
        )
    )


def _claim(variable: str, default: ClaimPath | None) -> ClaimPath:
    """Return the claim that the service would read with the same settings."""
    try:
        return ClaimPath.parse(os.environ.get(variable, str(default)))
    except ValueError as error:
        sys.exit(f"make token: {variable}: {error}")


def _manager_role() -> str:
    """Return the role that `make run` would give its own token with the same settings."""
    roles = [role.strip() for role in os.environ.get("JWT_MANAGER_ROLES", ROLE).split(",")]
    return min(roles)


if __name__ == "__main__":
    main()
