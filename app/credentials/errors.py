"""What the domain refuses, and why."""


class InvalidName(ValueError):
    """The name breaks the contract's rules. The message says which rule, without the name."""


class VerificationRefused(Exception):
    """The client ID and client secret are not, or no longer, a valid pair."""


class MalformedPair(VerificationRefused):
    """They do not even have the format of a pair. No guess at a client secret looks like that."""


class CredentialNotFound(Exception):
    """The unit has no such credential. Another unit's credential does not exist either."""


class CredentialLimitReached(Exception):
    """The unit already has as many credentials as it may have."""
