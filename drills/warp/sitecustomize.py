"""Lets a drill move the monotonic clock of gunicorn's workers ahead (DRILL_CLOCK names a file).

The service keeps an issuer's keys for minutes, and a drill has seconds. The master's clock stays:
it would take a worker whose heartbeat is far behind for dead. Waits of locks and sockets keep the
real time, since the interpreter asks the kernel for them.
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
