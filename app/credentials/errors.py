class InvalidName(ValueError):
    """A name that the contract does not allow; the message says why, without the name."""


class VerificationRefused(Exception):
    """The pair of client ID and client secret is not, or no longer, that of a credential."""


class HashingBusy(Exception):
    """As many secrets are being compared by bcrypt as may be; trying later may help."""


class CredentialNotFound(Exception):
    """The unit has no such credential; another unit's does not exist either."""
