"""Postgres: connections, their deadlines and failures, and the schema's migrations."""
