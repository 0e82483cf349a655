"""gunicorn's configuration, made from the service's settings.

`credentials serve` reads it in any directory, `gunicorn wsgi:app` in this one.
"""

import gc
import resource
import sys
from typing import TYPE_CHECKING

from app import logs
from app.metrics.directory import MetricsDirectory
from app.server import adaptation
from app.settings import WORKER_CLASSES, SettingsError, process_settings

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.http.message import Request

    from app.server.worker import Worker

try:
    settings = process_settings()
except SettingsError as error:
    print(error, file=sys.stderr)  # noqa: T201  logging is not set up yet
    sys.exit(2)

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would have keys and pairs in it
adaptation.raise_limit_of_files()

bind = settings.bind
workers = settings.web_concurrency
worker_class = WORKER_CLASSES[settings.worker_class]
logger_class = "app.server.adaptation.Logger"
threads = settings.threads
keepalive = settings.keep_alive_seconds
worker_connections = adaptation.max_connections(threads)
graceful_timeout = 10  # seconds: twice the longest answer, and a limit for half-sent requests
preload_app = True  # errors show before workers start, and workers share the code's memory
control_socket_disable = True
secure_scheme_headers = {}  # by default, contradicting ones from a trusted address are a 400
forwarder_headers = ""  # by default, a SCRIPT_NAME header from this host changes our paths
logconfig_dict = logs.configuration(settings.log_level)


def on_starting(arbiter: "Arbiter") -> None:
    """Refuse TLS, and make the directory in which the workers share their metrics.

    The arbiter keeps it, because gunicorn runs this file again on SIGHUP.
    """
    adaptation.require_no_tls(arbiter.cfg)
    arbiter.metrics = MetricsDirectory.make()


def pre_fork(arbiter: "Arbiter", worker: "Worker") -> None:
    """Give the worker its files in that directory, and spare it the garbage collector's walks."""
    gc.freeze()  # what is loaded by now stays; walking it would hold the interpreter for 0.1 s
    worker.metrics = arbiter.metrics.worker_files(each.metrics for each in arbiter.WORKERS.values())


def post_worker_init(worker: "Worker") -> None:
    """Open the services after the fork."""
    worker.wsgi.services.open(worker.metrics)


def pre_request(_: "Worker", request: "Request") -> None:
    """Let the application see that a request has several Idempotency-Keys."""
    adaptation.join_repeated_keys(request)


def worker_exit(_: "Arbiter", worker: "Worker") -> None:
    """Close the services when the worker stops."""
    worker.wsgi.services.close()


def child_exit(_: "Arbiter", worker: "Worker") -> None:
    """Remove the gauges of a worker that has ended. Its counters stay."""
    if worker.metrics is not None:
        worker.metrics.remove_gauges()


def on_exit(arbiter: "Arbiter") -> None:
    """Remove the directory when the service has stopped."""
    arbiter.metrics.remove()


adaptation.adapt_gunicorn()
