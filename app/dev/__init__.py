"""The embedded Postgres and the keys for `make run`, `make token` and the tests, not production."""
