"""`make bench`: measure the service's speed, as ratios within one run. See docs/benchmarks.md."""

import sys
from shutil import which
from signal import SIGTERM, signal

from bench.experiments import experiments
from bench.machine import describe_machine
from bench.measures import Measures, measure_in_turns, warm_up
from bench.plan import Plan
from bench.report import Servers, print_report, server_facts, write_result
from bench.stage import set_up


def main() -> None:
    """Run all experiments. Write var/bench.json after each, and print the tables at the end."""
    signal(SIGTERM, lambda *_: sys.exit("make bench: stopped."))  # stops the servers too
    plan = Plan.from_environment()
    _require_tools(plan)
    measures: Measures = {}
    servers: Servers = {}
    with set_up() as stage:
        machine = describe_machine(plan, stage.postgres_version())
        for experiment in experiments(plan):
            print(experiment.__doc__, flush=True)
            with experiment(stage, plan) as targets:
                warm_up(targets)
                seconds = plan.work_seconds if "issue" in targets else plan.seconds
                measures |= measure_in_turns(targets, rounds=plan.rounds, seconds=seconds)
                servers |= server_facts(targets)
            write_result(measures, servers, machine)
    print_report(measures, servers)


def _require_tools(plan: Plan) -> None:
    tools = ["wrk", *(["npm", "node"] if plan.is_whole else [])]
    missing = [tool for tool in tools if which(tool) is None]
    if missing:
        sys.exit(f"make bench: not installed: {', '.join(missing)}. QUICK=1 needs only wrk.")


if __name__ == "__main__":
    main()
