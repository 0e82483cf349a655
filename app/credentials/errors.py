class InvalidName(ValueError):
    """A name that the contract does not allow; the message says why, without the name."""


class CredentialNotFound(Exception):
    """The unit has no such credential; another unit's does not exist either."""
