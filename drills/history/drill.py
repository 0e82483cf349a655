"""The history drill: two minutes of the workload and the nemesis."""

import os
from pathlib import Path
from random import SystemRandom
from time import sleep

from drills.bars import Bar
from drills.history.history import History, Recorder
from drills.history.nemesis import Nemesis
from drills.history.report import bars_of
from drills.history.run import record
from drills.history.stage import running_stage
from drills.service import Testbed

_VAR = Path(__file__).parents[2] / "var"


def chosen_seed() -> int:
    """Return the seed in the environment's SEED, or else a new one."""
    return int(os.environ.get("SEED") or SystemRandom().randrange(1_000_000))


def history_under_faults(
    testbed: Testbed, *, seconds: float = 120, seed: int | None = None, faults: bool = True
) -> list[Bar]:
    """Clients call every verb while a nemesis breaks things, and their history is checked."""
    seed = chosen_seed() if seed is None else seed
    file = _VAR / f"history-{seed}.jsonl"
    print(f"  seed {seed} (SEED={seed} repeats its choices), {file}", flush=True)
    with running_stage(testbed) as stage:

        def during(recorder: Recorder) -> None:
            if not faults:
                sleep(seconds)
                return
            nemesis = Nemesis(stage, recorder, seed=seed)
            nemesis.start()
            sleep(seconds)
            nemesis.stop()

        history: History = record(stage, file, during, seed=seed)
        return bars_of(history, stage.outputs())
