"""The fast path of a verification, from the socket to the answer (ADR 8, 13 and 14).

`worker` waits for requests and answers in one send; `plain` says which requests it understands;
`middleware` is the door in front of Flask. WORKER_CLASS=gthread switches the worker off.
"""
