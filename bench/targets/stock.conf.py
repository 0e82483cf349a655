"""gunicorn's configuration for the floors: its defaults, and a pool that opens after the fork."""

control_socket_disable = True  # two servers of one user would share the socket's path


def post_worker_init(worker):
    """Open the application's services."""
    worker.wsgi.services.open()


def worker_exit(_, worker):
    """Close the application's services."""
    worker.wsgi.services.close()
