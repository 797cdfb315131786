"""What the loop itself costs a trial: everything but the recipe's and the measurement's own processes."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from agents.search import Search
from agents.supervisor import Bench, StopRules, Supervisor
from audit.domains import observation_of
from evaluators.measure import MeasuringProcess
from evaluators.task import Task
from ledger.campaign import Campaign
from ledger.events import Event, RunFinished, SessionStarted, VerdictReached
from ledger.keys import SigningKey
from ledger.log import EventLog
from runners.local import LocalRunner

TOY = Path(__file__).parent.parent / "tests" / "toy_task"
BUDGET_S = 0.150


class Stopwatch:
    """Wall seconds of each trial from the start of its session to its verdict, and what of it was not the loop's."""

    def __init__(self) -> None:
        self.overheads_s: list[float] = []
        self.recipe_s: list[float] = []
        self._began = 0.0
        self._elsewhere = 0.0
        self._recipe = 0.0

    def observe(self, event: Event, campaign: Campaign) -> None:
        """Told of each event as it is appended."""
        match event.body:
            case SessionStarted():
                self._began, self._elsewhere, self._recipe = time.perf_counter(), 0.0, 0.0
            case RunFinished() as body:
                spent = sum(facts.wall_s for facts in (body.train, *body.predict))
                self._elsewhere += spent
                self._recipe += spent
            case VerdictReached():
                self.overheads_s.append(time.perf_counter() - self._began - self._elsewhere)
                self.recipe_s.append(self._recipe)

    def measured(self, seconds: float) -> None:
        """Seconds that the measuring process took."""
        self._elsewhere += seconds


def run_campaign(folder: Path, trials: int) -> Stopwatch:
    """A campaign on the tests' toy task with every part real."""
    watch = Stopwatch()
    task = Task.load(TOY)
    key = folder / "evaluator.key"
    SigningKey.create(key, "bench")
    ask = MeasuringProcess._ask

    def timed(self: MeasuringProcess, request: Mapping[str, object]) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            return ask(self, request)
        finally:
            watch.measured(time.perf_counter() - began)

    runner = LocalRunner()
    MeasuringProcess._ask = timed  # type: ignore[method-assign]
    try:
        with EventLog.create(folder / "bench.db") as log:
            bench = Bench(task, log, Search(), runner, key, folder / "work", "benchmark", observation_of)
            Supervisor(bench, "toy-1", 1, watch.observe).run(StopRules(trials))
    finally:
        MeasuringProcess._ask = ask  # type: ignore[method-assign]
        runner.close()
    return watch


def cold_start_s(rounds: int) -> float:
    """Peer: what one process costs a harness that starts an interpreter with numpy for every execution."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


@click.command()
@click.option("--trials", default=60, show_default=True, help="Trials of the toy task.")
@click.option("--quick", is_flag=True, help="Ten trials.")
def main(trials: int, quick: bool) -> None:
    """Overhead of the loop a trial, beside the cost of cold interpreter starts in the same run.

    Example: python -m benchmarks.loop --trials 60
    """
    with tempfile.TemporaryDirectory() as folder:
        watch = run_campaign(Path(folder), 10 if quick else trials)
    cold = cold_start_s(10)
    overheads = sorted(watch.overheads_s)
    p95 = overheads[int(0.95 * (len(overheads) - 1))]
    median = statistics.median(overheads)
    processes = 2 * Task.load(TOY).contract.seeds.trial
    click.echo(f"trials                            {len(overheads)}")
    click.echo(
        f"overhead a trial, median          {median * 1000:8.1f} ms   {median / BUDGET_S:5.2f} of the budget of 150 ms"
    )
    click.echo(f"overhead a trial, 95th percentile {p95 * 1000:8.1f} ms   {p95 / BUDGET_S:5.2f}")
    click.echo(f"recipe's own processes, median    {statistics.median(watch.recipe_s) * 1000:8.1f} ms")
    click.echo(
        f"cold interpreter + numpy          {cold * 1000:8.1f} ms   a peer pays it {processes} times a trial: "
        f"{processes * cold / median:.1f} x this overhead"
    )


if __name__ == "__main__":
    main()
