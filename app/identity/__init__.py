"""Who calls: the issuer's public keys, and the tokens that are verified with them. No Flask."""
