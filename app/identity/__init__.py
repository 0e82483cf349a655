"""Who calls: the issuer's public keys, and the tokens that they check. No Flask in it."""
