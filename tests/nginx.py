"""Run Debian's nginx in the foreground, with its files in a directory of the test."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import require
from tests.running_server import HANG_SECONDS, ROOT, free_port, wait_until

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def in_directory(configuration: str, directory: Path) -> str:
    """Return the configuration, changed to run in the foreground with its files there."""
    temporary = "".join(f"{name}_temp_path {directory}/{name};\n" for name in _TEMPORARY)
    return (
        f"daemon off;\npid {directory}/nginx.pid;\n"
        # root's nginx would else work as nobody, who may not write here
        + ("user root;\n" if os.geteuid() == 0 else "")
        + configuration.replace("http {", "http {\n" + temporary).replace(
            "/var/log/nginx", str(directory)
        )
    )


def command(directory: Path) -> list[str]:
    """Return the command that runs `nginx.conf` of the directory."""
    return ["nginx", "-e", f"{directory}/error.log", "-c", f"{directory}/nginx.conf"]


@contextmanager
def running_nginx(configuration: str, directory: Path) -> Iterator[None]:
    """Run nginx with the configuration."""
    require("nginx", install="apt-get install nginx-light")
    (directory / "nginx.conf").write_text(in_directory(configuration, directory))
    process = subprocess.Popen(command(directory))
    try:
        wait_until((directory / "nginx.pid").exists)  # it listens by then
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANG_SECONDS)


@contextmanager
def under_prefix(
    service_port: int, directory: Path, prefix: str = "/credentials", *, also: str = ""
) -> Iterator[str]:
    """Run nginx as docs/operations.md says, with the service under the prefix. Yield its address.

    `also` is added to the location.
    """
    page = (ROOT / "docs" / "operations.md").read_text()
    (server,) = re.findall(r"^```nginx\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    stated = "proxy_pass http://127.0.0.1:8000/;"
    assert stated in server
    server = server.replace(stated, f"proxy_pass http://127.0.0.1:{service_port}/;\n{also}")
    server = server.replace("/credentials", prefix)
    port = free_port()
    configuration = f"""
        events {{}}
        http {{
            access_log off;
            server {{
                listen 127.0.0.1:{port};
                {server}
            }}
        }}
    """
    with running_nginx(configuration, directory):
        yield f"http://127.0.0.1:{port}{prefix}"
