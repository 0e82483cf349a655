"""Move the monotonic clock of gunicorn's workers ahead, as the file in DRILL_CLOCK says.

The service keeps an issuer's keys for minutes, and a drill has only seconds. The master's clock is
not changed: otherwise it would kill workers, because their heartbeats seem old. Waits for locks and
sockets take real time, because the kernel measures them.
"""

import mmap
import os
import struct
import time

_real = time.monotonic
_master = os.getpid()
with open(os.environ["DRILL_CLOCK"], "rb") as _file:  # noqa: PTH123  every start of Python runs this, so it imports little
    _offset = mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)


def _monotonic() -> float:
    ahead: float = 0.0 if os.getpid() == _master else struct.unpack("d", _offset[:8])[0]
    return _real() + ahead


time.monotonic = _monotonic
