"""The domain: credentials and their client secrets. No HTTP word in it."""
