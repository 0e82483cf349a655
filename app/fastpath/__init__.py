"""The fast path of a verification, from the socket to the answer (ADR 8, 13 and 14).

`worker` receives requests and sends each answer in one call. `plain` parses the requests that it
understands. `middleware` answers them in front of Flask. WORKER_CLASS=gthread turns off the worker.
"""
