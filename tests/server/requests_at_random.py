"""Random requests: plain, odd, in pieces, pipelined, malformed, and attempts at smuggling."""

import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """Bytes that are sent in pieces. `requests` is the number of answers that they ask for.

    If it is not certain that the bytes are complete requests, the client closes its side after
    them.
    """

    pieces: list[bytes]
    requests: int = 1
    is_final: bool = False

    @property
    def wants_no_body(self) -> bool:
        return b"".join(self.pieces).startswith(b"HEAD ")


class Author:
    """Writes messages. The same seed gives the same messages."""

    def __init__(self, seed: int, pairs: list[tuple[str, str]], token: str) -> None:
        self._random = random.Random(seed)  # noqa: S311  nothing secret
        self._pairs = pairs
        self._token = token

    def conversation(self) -> Iterator[Message]:
        """Return the messages that a client sends on one connection, at most 39."""
        for _ in range(self._random.randrange(1, 40)):
            message = self._pick(
                (82, self._plain), (5, self._odd), (8, self._pipelined), (5, self._malformed)
            )
            yield message
            if message.is_final:
                return

    def _pick(self, *weighted):
        weights = [weight for weight, _ in weighted]
        return self._random.choices([make for _, make in weighted], weights)[0]()

    def _one_of(self, *choices):
        return self._random.choice(choices)

    # Messages

    def _plain(self) -> Message:
        return Message(self._cut(self._request()))

    def _odd(self) -> Message:
        """Return a complete and valid request that a fast path may not understand."""
        request = self._request(self._odd_target(), *self._odd_headers())
        return Message(self._cut(request + self._body()), is_final=True)

    def _pipelined(self) -> Message:
        count = self._random.randrange(2, 9)
        requests = [self._request(method="GET") for _ in range(count)]
        return Message(self._cut(b"".join(requests)), requests=count)

    def _malformed(self) -> Message:
        """Return a damaged request, or one with an ambiguous length."""
        if self._random.random() < 0.4:
            target = self._one_of("/verify", "/verify/ingest", "/verify/nonsense")
            request = self._request(target, *self._framing(), method="POST")
            return Message(self._cut(request + self._body()), is_final=True)
        request = self._request(self._odd_target(), *self._odd_headers()[:1])
        for _ in range(self._random.randrange(1, 4)):
            request = self._damaged(request)
        return Message(self._cut(request), is_final=True)

    # Their parts

    def _request(self, target: str = "", *headers: bytes, method: str = "") -> bytes:
        method = method or self._one_of("GET", "GET", "GET", "HEAD", "POST")
        verify = self._one_of("/verify", "/verify", "/verify/ingest", "/verify/events")
        target = target or ("/readyz" if self._random.random() < 0.03 else verify)
        lines = [
            self._cased(b"Host: ") + self._one_of(*[b"localhost", b"127.0.0.1:8000"] * 8, b"a b"),
            *self._authorization(),
            *self._random.sample(_ORDINARY, self._random.randrange(4)),
            *headers,
        ]
        self._random.shuffle(lines)
        start = f"{method} {target} HTTP/1.1".encode("latin-1")
        return b"\r\n".join([start, *lines, b"", b""])

    def _authorization(self) -> list[bytes]:
        client_id, client_secret = self._random.choice(self._pairs)
        pair = self._one_of(
            f"{client_id}:{client_secret}",
            f"{client_id}:{client_secret[::-1]}",
            f"{client_id}:",
            client_id,
            "",
            "\N{SNOWMAN}:\0",
        )
        basic = b64encode(pair.encode())
        value = self._one_of(
            b"Basic " + basic,
            b"Basic " + basic,
            b"basic " + basic,
            b"Basic  " + basic,
            b"Basic " + basic[:-1],
            b"Basic",
            b"Bearer " + basic,
            b"Bearer " + self._token.encode(),
        )
        return self._one_of([self._cased(b"Authorization: ") + value])

    def _odd_target(self) -> str:
        return self._one_of(
            "/verify", "/verify?a=b", "/verify?", "/verify/", "//verify", "/%76erify", "/verify%00",
            "/verify;x", "/verify/../verify", "/./verify", "/verify#x", "/VERIFY", "/v\xe9rify",
            "http://localhost/verify", "http://x", "*", "/", "/healthz", "/secrets", "/secrets/",
            "/verify/ingest/", "/verify//ingest", "/verify/%69ngest", "/verify/ingest?x",
            "/verify/x", "/verify/INGEST", "/verify/ingest%2F", "/verify/events/x",
            "/verify%2Fingest", "/secrets/events", "/nothing", "/" + "a" * 4100, "verify",
            "/verify\\", "/~a_b-c.d",
        )  # fmt: skip

    def _odd_headers(self) -> list[bytes]:
        return self._random.sample(_ODD, self._random.randrange(1, 3))

    def _framing(self) -> list[bytes]:
        return self._random.sample(_FRAMING, self._random.randrange(1, 4))

    def _body(self) -> bytes:
        return self._one_of(
            b"", b"", b"{}", b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"5\r\nab",
            b"GET /verify HTTP/1.1\r\nHost: x\r\n\r\n",
            b"0\r\n\r\nGET /verify HTTP/1.1\r\nHost: x\r\n\r\n",
        )  # fmt: skip

    def _cased(self, name: bytes) -> bytes:
        return self._one_of(name, name, name.lower(), name.upper())

    def _cut(self, message: bytes) -> list[bytes]:
        if self._random.random() < 0.9:
            return [message]
        marks = sorted(self._random.randrange(len(message)) for _ in range(2))
        pieces = [message[: marks[0]], message[marks[0] : marks[1]], message[marks[1] :]]
        return [piece for piece in pieces if piece]

    def _damaged(self, message: bytes) -> bytes:
        at = self._random.randrange(len(message))
        end = at + self._random.choice([0, 0, 1, 1, 2, 30])
        insert = self._one_of(
            b"", b"", b" ", b"\t", b":", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\r\n ", b"\0", b",",
            b"\x80", b"\x7f", b"_", b"-", b"%", b"?", b"HTTP/1.0", b"HTTP/1.9", b"a",
            self._one_of(*_FRAMING, *_ODD) + b"\r\n",
        )  # fmt: skip
        if self._random.random() < 0.3:  # parsers differ most at the ends of lines
            at = end = message.find(b"\r\n", at) + self._one_of(0, 1, 2)
        return message[: max(0, at)] + insert + message[max(0, end) :]


_ORDINARY = [
    b"X-Request-Id: mine.1_2-3",
    b"X-Request-Id: not valid",
    b"User-Agent: curl/8.0 (x86_64; like Gecko)",
    b"Accept: */*",
    b"Accept-Encoding: gzip, deflate, br",
    b"X-Forwarded-For: 1.1.1.1, 2.2.2.2",
    b"X-Forwarded-Proto: https",
    b"Cookie: activeOu=unit_demo; a=b",
    b"Forwarded: for=1.1.1.1",
    b"Connection: keep-alive",
    b"connection: Keep-Alive",
    b"Connection: close",
    b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"X: y",
]

_ODD = [
    b"Host: again",
    b"Host: a@b",
    b"Authorization: Basic again",
    b"X-Empty:",
    b"X-Empty: ",
    b"X-Spaces:   many  spaces  ",
    b"X-None:none",
    b"X-Tab:\ta\tb",
    b"X-Latin: \xe9",
    b"X_Underscore: a",
    b"Script_Name: /secrets",
    b"Script-Name: /secrets",
    b"Path-Info: /secrets",
    b"Remote-User: ada",
    b"Proxy: http://x",
    b"Content-Type: application/json",
    b"Content-Length: 0",
    b"Content-Length: 2",
    b"Expect: 100-continue",
    b"Expect: 200-maybe",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Connection: close, x",
    b"Connection: te",
    b"TE: trailers",
    b"X-Request-Id: first\r\nX-Request-Id: second",
    b"X-Long: " + b"a" * 8200,
    b"X-Long: " + b"a" * 3500,
    b"\r\n".join(b"X-%d: a" % number for number in range(70)),
    b"\r\n".join(b"X-%d: a" % number for number in range(110)),
    b"X-Folded: a\r\n b",
]

_FRAMING = [
    b"Content-Length: 2",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: +2",
    b"Content-Length: 2, 2",
    b"Content-Length: 2\r\nContent-Length: 2",
    b"Content-Length: 2\r\nContent-Length: 3",
    b"Content-Length : 2",
    b"Content-Length:\t2",
    b"Content_Length: 2",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer_Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
]
