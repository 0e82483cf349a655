"""Record a history and check it, or check one that was recorded earlier.

.venv/bin/python -m drills.history --seconds 120 --seed 7
.venv/bin/python -m drills.history --check var/history.jsonl
"""

import argparse
import signal
import sys
from pathlib import Path
from random import SystemRandom

_ROOT = Path(__file__).parents[2]
