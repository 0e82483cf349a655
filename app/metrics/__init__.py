"""Metrics: each process counts, and all publish for Prometheus together (ADR 18)."""
