"""Counters of rate limits in Redis, which several hosts share (ADR 29)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from app.rate_limits import WINDOW_SECONDS

if TYPE_CHECKING:
    from app.rate_limits import Key

_PAUSE_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class RedisCounters:
    """Counters in Redis, which several hosts share.

    Redis knows a key only by its hash, which is keyed with `secret`: so nobody can compute two keys
    that share a counter, and Redis contains no addresses.

    A thread asks for all callers, because asyncio can end a question in time whatever Redis does: a
    socket's timeout starts again with every byte. After any failure nothing is counted, and one
    caller a second tries again.
    """

    is_remote = True

    def __init__(self, url: str, secret: bytes, *, answer_seconds: float = 0.2) -> None:
        self._url = url
        self._answer_seconds = answer_seconds
        self._hash_key = hmac.digest(secret, b"rate limits", hashlib.sha256)
        self._retry_at = 0.0  # 0 while Redis answers
        self._lock = Lock()

    def open(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._redis = Redis.from_url(self._url)
        self._thread = Thread(target=self._run, name="counters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def add(self, key: Key, events: int, *, limit: int) -> float | None:
        if not self._may_ask():
            return None
        asking = asyncio.run_coroutine_threadsafe(self._ask(key, events, limit), self._loop)
        try:
            seconds = asking.result(self._answer_seconds)
        except Exception as error:  # noqa: BLE001  whatever Redis sends, it is no reason for a 500
            asking.cancel()
            _logger.warning("not being counted: Redis is unreachable (%s)", type(error).__name__)
            self._retry_at = monotonic() + _PAUSE_SECONDS
            return None
        if self._retry_at:
            self._retry_at = 0.0
            _logger.info("being counted again: Redis is reachable")
        return seconds

    def _may_ask(self) -> bool:
        now = monotonic()
        with self._lock:
            if now < self._retry_at:
                return False
            if self._retry_at:
                self._retry_at = now + _PAUSE_SECONDS  # for the others
            return True

    async def _ask(self, key: Key, events: int, limit: int) -> float | None:
        name = self._name(key)
        question = self._redis.pipeline()
        question.set(name, 0, ex=WINDOW_SECONDS, nx=True)
        question.incrby(name, events)
        question.ttl(name)
        _, count, seconds = await question.execute()
        return None if count - events < limit else int(seconds)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._redis.aclose())
        self._loop.close()

    def _name(self, key: Key) -> str:
        message = "\n".join(key).encode()
        digest = hashlib.blake2b(message, key=self._hash_key, digest_size=16).hexdigest()
        return f"leadvibe-credentials/{digest}"
