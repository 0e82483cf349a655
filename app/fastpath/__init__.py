"""The fast path of a verification, from the socket to the answer (ADR 8 and 13).

WORKER_CLASS=gthread switches the worker off; the middleware serves under both.
"""
