"""The history drill, and the soak: the same for an hour, while what may grow is watched."""

import os
from pathlib import Path
from random import SystemRandom
from time import sleep

from drills.bars import Bar
from drills.history.growth import Watch, growth_bars
from drills.history.history import Recorder
from drills.history.nemesis import Nemesis
from drills.history.report import bars_of
from drills.history.run import record
from drills.history.stage import running_stage
from drills.service import Testbed

_VAR = Path(__file__).parents[2] / "var"
_SOAK_QUIET_SECONDS = (5.0, 25.0)


def chosen_seed() -> int:
    """Return the seed in the environment's SEED, or else a new one."""
    return int(os.environ.get("SEED") or SystemRandom().randrange(1_000_000))


def history_file(seed: int) -> Path:
    """Return where the history is kept, and print how to repeat it."""
    file = _VAR / f"history-{seed}.jsonl"
    print(f"  seed {seed} (SEED={seed} makes the same choices again), {file}", flush=True)
    return file


def history_under_faults(
    testbed: Testbed, *, seconds: float = 120, faults: bool = True
) -> list[Bar]:
    """Clients call every verb while a nemesis breaks things, and their history is checked."""
    seed = chosen_seed()
    with running_stage(testbed) as stage:

        def during(recorder: Recorder) -> None:
            nemesis = Nemesis(stage, recorder, seed=seed)
            if faults:
                nemesis.start()
            sleep(seconds)
            nemesis.stop()

        history = record(stage, history_file(seed), during, seed=seed)
        return bars_of(history, stage.outputs())


def soak(testbed: Testbed, *, minutes: float) -> list[Bar]:
    """The same with rarer faults, while everything that may grow is watched."""
    seed = chosen_seed()
    with running_stage(testbed) as stage:
        watch = Watch(stage, pause=max(2.0, minutes / 6))

        def during(recorder: Recorder) -> None:
            nemesis = Nemesis(
                stage, recorder, seed=seed, quiet_seconds=_SOAK_QUIET_SECONDS, spare=True
            )
            nemesis.start()
            watch.start()
            sleep(minutes * 60)
            watch.stop()
            nemesis.stop()

        history = record(stage, history_file(seed), during, seed=seed)
        return [*bars_of(history, stage.outputs()), *growth_bars(watch.samples)]
