"""Postgres under Patroni with two instances of the service, and what happens when it fails."""
