"""What the domain refuses, and why."""


class InvalidName(ValueError):
    """The name breaks the contract's rules. The message says which rule, without the name."""


class VerificationRefused(Exception):
    """The client ID and client secret are not, or no longer, a valid pair."""


class HashingBusy(Exception):
    """Too many client secrets are being hashed. A later attempt may succeed."""


class CredentialNotFound(Exception):
    """The unit has no such credential. Another unit's credential does not exist either."""
