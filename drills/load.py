"""Put the service under load, and record each call's start, duration and status.

Each group of callers is a process, so that one group's work does not distort the times of another.
The module is both ends: `Load` starts `python -m drills.load`, which runs the callers' threads.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from types import TracebackType
from typing import NamedTuple, Self

NO_ANSWER = 0
_ANSWER_SECONDS = 20.0
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Request:
    """One HTTP request, without Host, Content-Type and Content-Length, which `message` adds.

    With the header Transfer-Encoding, the body is sent as one chunk.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: str | None = None

    def message(self) -> str:
        """Return the request as it is sent."""
        headers = {"Host": "127.0.0.1", **self.headers}
        body = self.body or ""
        if self.body is not None:
            headers["Content-Type"] = "application/json"
            if "Transfer-Encoding" in headers:
                body = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"
            else:
                headers["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n{body}"


@dataclass(frozen=True)
class Callers:
    """A group of callers: for each caller, the requests that it makes one after another.

    `pause` is in seconds, after each answer. With `once`, a caller stops after its last request;
    otherwise it starts again with the first. `reconnect` opens a connection for each request.
    """

    requests: Sequence[Sequence[Request]]
    pause: float = 0.0
    once: bool = False
    reconnect: bool = False


class Answer(NamedTuple):
    """When the call began (this machine's monotonic clock), how many seconds it took, its status.

    The status is `NO_ANSWER` if the connection broke or no answer came in time.
    """

    started: float
    seconds: float
    status: int
    retry_after: bool


class Answers(list[Answer]):
    """The answers to a group of callers."""

    def percentile(self, percent: float) -> float:
        """Return the seconds within which `percent` of the calls were answered (nearest rank)."""
        if not self:
            raise ValueError("nobody was answered")
        seconds = sorted(answer.seconds for answer in self)
        return seconds[max(0, ceil(len(seconds) * percent / 100) - 1)]

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def p99(self) -> float:
        return self.percentile(99)

    @property
    def slowest(self) -> float:
        return self.percentile(100)

    def started(self, after: float, before: float = float("inf")) -> "Answers":
        """Return the answers to the calls that began in this period."""
        return Answers(answer for answer in self if after <= answer.started < before)

    def with_status(self, *statuses: int) -> int:
        """Return how many answers had one of the statuses."""
        return sum(answer.status in statuses for answer in self)

    def without_status(self, *statuses: int) -> int:
        """Return how many answers had none of the statuses."""
        return len(self) - self.with_status(*statuses)

    def without_retry_after(self, *statuses: int) -> int:
        """Return how many of the answers with one of the statuses lack `Retry-After`."""
        return sum(answer.status in statuses and not answer.retry_after for answer in self)

    def back_after(self, moment: float, status: int = 200) -> float:
        """Return how many seconds after the moment the last unserved call began.

        Infinity if no call was served after the moment.
        """
        late = [answer for answer in self.started(moment) if answer.status != status]
        served = self.started(moment).with_status(status)
        return float("inf") if not served else max((a.started - moment for a in late), default=0.0)


class Load:
    """Groups of callers that begin together, and end when `stop` is called.

    After that, each group's answers are under its name: `load["verifying"]`.
    """

    def __init__(self, port: int, **groups: Callers) -> None:
        self._answers: dict[str, Answers] = {}
        self._processes = {name: _start(port, callers) for name, callers in groups.items()}
        for process in self._processes.values():
            _send(process, "ready?")
        self.began = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    def __getitem__(self, name: str) -> Answers:
        return self._answers[name]

    def wait_for(self, *groups: str) -> None:
        """Wait until the callers of these groups, which call `once`, have made their calls."""
        for name in groups:
            _send(self._processes[name], "done?")

    def stop(self) -> None:
        """Let the callers finish their current calls, and collect the answers."""
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.write("stop\n")
            process.stdin.flush()
        for name, process in self._processes.items():
            output, _ = process.communicate()
            self._answers[name] = Answers(Answer(*each) for each in json.loads(output))
        self._processes = {}


def during(seconds: float, port: int, **groups: Callers) -> Load:
    """Let the groups call for `seconds`."""
    with Load(port, **groups) as load:
        sleep(seconds)
    return load


def _start(port: int, callers: Callers) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "drills.load"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    order = {
        "port": port,
        "messages": [[each.message() for each in requests] for requests in callers.requests],
        "pause": callers.pause,
        "once": callers.once,
        "reconnect": callers.reconnect,
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(order) + "\n")
    return process


def _send(process: "subprocess.Popen[str]", word: str) -> None:
    """Send the word and wait for the line that answers it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
    process.stdout.readline()


# --- the other end ---


class _Connection:
    """A client's connection that does as little work as possible for each call."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def call(self, message: bytes) -> tuple[int, bool]:
        """Return the status of the answer, and whether it has a `Retry-After`."""
        is_used = self._socket is not None
        try:
            answer = self._attempt(message)
            if answer is None and is_used:  # the server closed it while it was idle
                answer = self._attempt(message)
        except OSError:
            self.close()
            answer = None
        return answer or (NO_ANSWER, False)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _attempt(self, message: bytes) -> tuple[int, bool] | None:
        """Return the status and the flag. If the server closes without an answer, return None."""
        if self._socket is None:
            address = ("127.0.0.1", self._port)
            self._socket = socket.create_connection(address, timeout=_ANSWER_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(message)
            return self._read(self._socket)
        except (ConnectionResetError, BrokenPipeError, EOFError):
            self.close()
            return None

    def _read(self, connection: socket.socket) -> tuple[int, bool]:
        received = b""
        while b"\r\n\r\n" not in received:
            received += _receive(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        missing = int(headers.get("content-length", "0")) - len(body)
        while missing > 0:
            missing -= len(_receive(connection))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(status_line.split(" ")[1]), "retry-after" in headers


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(262_144)
    if not received:
        raise EOFError
    return received


def _call_on(
    port: int, messages: Iterator[bytes], pause: float, stop: Event, *, reconnect: bool
) -> list[tuple[float, float, int, bool]]:
    """Make the calls of one caller until it is stopped."""
    connection = _Connection(port)
    answers = []
    for message in messages:
        if stop.is_set():
            break
        started = monotonic()
        status, retry_after = connection.call(message)
        answers.append((started, monotonic() - started, status, retry_after))
        if reconnect:
            connection.close()
        if pause:
            stop.wait(pause)
    connection.close()
    return answers


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def _main() -> None:
    order = json.loads(sys.stdin.readline())
    stop = Event()
    answers: list[tuple[float, float, int, bool]] = []

    def caller(texts: list[str]) -> Callable[[], None]:
        messages = [text.encode() for text in texts]

        def run() -> None:
            turns = iter(messages) if order["once"] else cycle(messages)
            answers.extend(
                _call_on(order["port"], turns, order["pause"], stop, reconnect=order["reconnect"])
            )

        return run

    threads = [Thread(target=caller(texts)) for texts in order["messages"]]
    for line in sys.stdin:
        if line == "ready?\n":
            for thread in threads:
                thread.start()
            _say("ready")
        elif line == "done?\n":
            for thread in threads:
                thread.join()
            _say("done")
        else:
            break
    stop.set()
    for thread in threads:
        thread.join()
    _say(json.dumps(sorted(answers)))


if __name__ == "__main__":
    _main()
