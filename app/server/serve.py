"""Run gunicorn on the service, in any directory: `credentials serve`."""

import os
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.app.base import Application

_HOME = Path(__file__).parents[2]  # of gunicorn.conf.py and wsgi.py


class _Service(Application):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn, with the service's own configuration and application."""

    def load_config(self) -> None:
        """Load the service's configuration, and then GUNICORN_CMD_ARGS, as gunicorn does."""
        self.load_config_from_file(str(_HOME / "gunicorn.conf.py"))
        arguments = self.cfg.parser().parse_args(self.cfg.get_cmd_args_from_env())
        if arguments.config:
            self.load_config_from_file(arguments.config)
        for name, value in vars(arguments).items():
            if value is not None and name != "args":
                self.cfg.set(name, value)
        # gunicorn's own `chdir` also looks for modules there, and before all others
        os.chdir(self.cfg.chdir)

    def load(self) -> Any:
        return util.import_app("wsgi:app")


def serve() -> None:
    """Serve until a signal ends it. The signals and the exit statuses are gunicorn's."""
    _Service(prog="credentials serve").run()
