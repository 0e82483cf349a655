"""Follow the trail of a unit as it grows."""

import signal
from collections.abc import Iterator
from threading import Event
from types import FrameType

import click

from app.credentials.errors import HistoryLost
from app.credentials.management import CredentialService
from app.credentials.model import (
    START_OF_TRAIL,
    Caller,
    EventFilter,
    TrailPosition,
    UnitEvent,
)
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
    position = START_OF_TRAIL
    printed: dict[int, TrailPosition] = {}  # the last event of each history, oldest first
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
            if error.has_history:
                position = position.end_of_history
            else:
                printed.pop(position.history, None)
                position = next(reversed(printed.values()), START_OF_TRAIL)
            continue
        is_down = False
        yield from page.items
        printed |= {each.position.history: each.position for each in page.items}
        if not page.items:
            stopping.wait(_PAUSE_SECONDS)
        position = page.next or position
