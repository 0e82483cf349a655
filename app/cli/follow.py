"""Follow the trail of a unit as it grows."""

import signal
from collections.abc import Iterator
from threading import Event
from types import FrameType

import click

from app.credentials.management import CredentialService
from app.credentials.model import Caller, EventFilter, TrailPosition, UnitEvent
from app.database.errors import DatabaseUnavailable

_PAUSE_SECONDS = 1.0


def follow_events(
    service: CredentialService, caller: Caller, *, only: EventFilter
) -> Iterator[UnitEvent]:
    """Yield the unit's events, oldest first, and new ones as they come, until SIGTERM or SIGINT.

    Waits while the database is down, and misses nothing.
    """
    stopping = Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    position: TrailPosition | None = None
    is_down = False
    while not stopping.is_set():
        try:
            page = service.unit_events(caller, only=only, order="asc", after=position)
        except DatabaseUnavailable:
            if not is_down:
                click.echo("The database is unavailable; waiting.", err=True)
            is_down = True
            stopping.wait(_PAUSE_SECONDS)
            continue
        is_down = False
        yield from page.items
        if not page.items:
            stopping.wait(_PAUSE_SECONDS)
        position = page.next
