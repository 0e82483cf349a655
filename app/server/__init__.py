"""How gunicorn serves the application: threads for each kind of work, and a fast path (ADR 10, 24).

`adaptation` is what gunicorn.conf.py installs. WORKER_CLASS chooses between `worker`, which lets
gunicorn parse every request, and `fast_worker`, which serves plain requests itself.
"""
