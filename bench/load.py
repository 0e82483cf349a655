"""Put a server under load with wrk."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from bench.measures import Measure, check_failures
from bench.servers import Server

_MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}


@dataclass(frozen=True)
class Request:
    """A request that wrk sends."""

    path: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: str | None = None


@dataclass(frozen=True)
class Requests:
    """The requests that a server gets in turn, and what the right answer to the first one has."""

    name: str
    each: Sequence[Request]
    status: int = 200
    contains: str = ""


class HttpTarget:
    """A server that gets requests over a number of connections, each kept alive."""

    def __init__(
        self, server: Server, requests: Requests, connections: int, directory: Path
    ) -> None:
        self.server = server
        self._requests = requests
        self._connections = connections
        self._script = directory / f"{requests.name}-{server.port}.lua"
        self._script.write_text(_script(requests.each))
        self._check()

    def measure(self, seconds: int) -> Measure:
        """Run wrk for `seconds`. Only right answers count for the rate."""
        before = self.server.cpu_seconds()
        output = self._run_wrk(seconds)
        used = self.server.cpu_seconds() - before
        count = _number(r"(\d+) requests in", output)
        failed = self._wrong_answers(output, count) / count
        check_failures(self.server.name, failed)
        return Measure(
            requests_per_second=_number(r"Requests/sec: +([\d.]+)", output) * (1 - failed),
            p50_ms=_latency(50, output),
            p99_ms=_latency(99, output),
            cpu_seconds_per_1000=used / count * 1000,
            failed=failed,
        )

    def _run_wrk(self, seconds: int) -> str:
        return subprocess.check_output(
            [
                "wrk",
                "--threads=1",
                f"--connections={self._connections}",
                f"--duration={seconds}s",
                "--latency",
                "--timeout=10s",
                f"--script={self._script}",
                f"http://127.0.0.1:{self.server.port}",
            ],
            text=True,
        )

    def _wrong_answers(self, output: str, count: float) -> float:
        errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        refused = int(errors[1]) if errors else 0
        wrong = refused if self._requests.status < 400 else count - refused
        lost = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        return wrong + (sum(map(int, lost.groups())) if lost else 0)

    def _check(self) -> None:
        """Send the first request alone. Exits if the answer is not the right one."""
        first = self._requests.each[0]
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request(first.method, first.path, first.body, dict(first.headers))
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.status != self._requests.status or self._requests.contains not in text:
            sys.exit(f"make bench: {self.server.name} answered {response.status}: {text[:500]}")


def _script(requests: Sequence[Request]) -> str:
    """Return the wrk script that sends the requests in turn. It formats them before the load."""
    listed = ",\n".join(_lua_request(each) for each in requests)
    return f"""\
local requests = {{
{listed}
}}
local made = {{}}
local turn = 0

function init()
  for number, each in ipairs(requests) do
    made[number] = wrk.format(each.method, each.path, each.headers, each.body)
  end
end

function request()
  turn = turn % #made + 1
  return made[turn]
end
"""


def _lua_request(request: Request) -> str:
    headers = ", ".join(
        f"[{_lua_text(name)}]={_lua_text(text)}" for name, text in request.headers.items()
    )
    body = f", body={_lua_text(request.body)}" if request.body is not None else ""
    return (
        f"{{method={_lua_text(request.method)}, path={_lua_text(request.path)}, "
        f"headers={{{headers}}}{body}}}"
    )


def _lua_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _latency(percentile: int, output: str) -> float:
    found = re.search(rf" {percentile}% +([\d.]+)(us|ms|s|m)", output)
    if found is None:
        sys.exit(f"make bench: wrk printed\n{output}")
    return float(found[1]) * _MILLISECONDS[found[2]]


def _number(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    if found is None:
        sys.exit(f"make bench: wrk printed\n{output}")
    return float(found[1])
