"""Follow the trail of a unit as it grows."""

import signal
from collections.abc import Iterator
from threading import Event
from types import FrameType

import click

from app.credentials.errors import HistoryLost
from app.credentials.management import CredentialService
from app.credentials.model import Caller, EventFilter, TrailPosition, UnitEvent
from app.database.errors import DatabaseUnavailable

_PAUSE_SECONDS = 1.0


def follow_events(
    service: CredentialService, caller: Caller, *, only: EventFilter
) -> Iterator[UnitEvent]:
    """Yield the unit's events, oldest first, and new ones as they come, until SIGTERM or SIGINT.

    Waits while the database is down, and misses nothing. If a failover or a restore has lost events
    that were printed, it says so, and continues with the first event that was not.
    """
    stopping = Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    position: TrailPosition | None = None
    earlier: list[TrailPosition] = []  # the last in each history before that of `position`
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
        except HistoryLost as error:
            click.echo(
                "Some of these events were lost in a failover or a restore; going on.", err=True
            )
            if error.has_history and position is not None:
                position = position.end_of_history
            else:
                position = earlier.pop() if earlier else None
            continue
        is_down = False
        yield from page.items
        if not page.items:
            stopping.wait(_PAUSE_SECONDS)
        if position is not None and page.next is not None and page.next.history > position.history:
            earlier.append(position)
        position = page.next
