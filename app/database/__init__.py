"""Postgres: connections, their deadlines and errors, and the schema's migrations."""
