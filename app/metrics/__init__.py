"""Metrics: what a process counts, published for Prometheus over all processes (ADR 18)."""
