"""Postgres under Patroni with two instances of the service, and drills that make it fail."""
