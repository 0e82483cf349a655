"""gunicorn's settings, from the service's. `gunicorn wsgi:app` reads them in this directory."""

import sys
from typing import TYPE_CHECKING

from app import logs, server
from app.metrics.directory import MetricsDirectory
from app.settings import WORKER_CLASSES, SettingsError, settings_of_the_process

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

try:
    settings = settings_of_the_process()
except SettingsError as error:
    print(error, file=sys.stderr)  # noqa: T201  logging is not set up yet
    sys.exit(2)

bind = settings.bind
workers = settings.web_concurrency
worker_class = WORKER_CLASSES[settings.worker_class]
logger_class = "app.server.Logger"
threads = settings.threads
graceful_timeout = 10  # twice the longest answer; a half-sent request holds a stop no longer
preload_app = True  # errors show before a worker starts, and workers share the code's memory
control_socket_disable = True
secure_scheme_headers = {}  # by default, two that disagree are a 400 from a trusted address
forwarder_headers = ""  # by default, a SCRIPT_NAME header from this host would move our URLs
logconfig_dict = logs.configuration(settings.log_level)


def on_starting(arbiter: "Arbiter") -> None:
    """Make the directory in which the workers share their metrics.

    It hangs on the arbiter, because gunicorn runs this file again on SIGHUP.
    """
    arbiter.metrics = MetricsDirectory.make()


def pre_fork(arbiter: "Arbiter", worker: "server.Worker") -> None:
    """Give the worker its share of that directory."""
    worker.metrics = arbiter.metrics.share(each.metrics for each in arbiter.WORKERS.values())


def post_worker_init(worker: "server.Worker") -> None:
    """Open the services after the fork."""
    worker.wsgi.services.open(worker.metrics)


def worker_exit(_: "Arbiter", worker: "server.Worker") -> None:
    """Close the services when the worker stops."""
    worker.wsgi.services.close()


def child_exit(_: "Arbiter", worker: "server.Worker") -> None:
    """Forget the state of a worker that has ended. Its counts stay."""
    if worker.metrics is not None:
        worker.metrics.leave()


def on_exit(arbiter: "Arbiter") -> None:
    """Remove the directory when the service has stopped."""
    arbiter.metrics.remove()


server.install()
