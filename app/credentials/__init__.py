"""The domain: credentials and their client secrets, without any HTTP."""
