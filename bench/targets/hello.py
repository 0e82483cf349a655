"""The least that a WSGI application can do: `gunicorn bench.targets.hello:app`."""


class _Nothing:
    """Services to open and close, for the hooks in gunicorn's configuration."""

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Hello:
    services = _Nothing()

    def __call__(self, _, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]


app = _Hello()
