"""The domain: credentials and their client secrets. It knows nothing of HTTP."""
