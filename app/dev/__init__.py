"""The embedded Postgres and keys of `make run`, `make token` and the tests. Not for production."""
