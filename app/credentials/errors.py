class InvalidName(ValueError):
    """A name that the contract does not allow; the message says why, without the name."""
