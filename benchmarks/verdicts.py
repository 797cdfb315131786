"""What verdicts are worth on this machine: the unchanged champion handed in again, and gains that are planted."""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import click
from rich.progress import track

from agents.proposal import Brief, Proposal
from agents.supervisor import Bench, StopRules, Supervisor
from evaluators.task import Task, find_task
from ledger.campaign import Campaign
from ledger.events import Event
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.recipes import Recipe
from ledger.vocabulary import Verdict
from runners.local import LocalRunner

TASK = "airbench-cpu"
STATEMENT = "EPOCHS = 17\n"
END = "# end of the planted loop\n"
SIGMAS = 3.0


class Planter:
    """A proposer whose trials differ from the champion in nothing but the rounds of an empty loop."""

    name = "planter"

    def __init__(self, rounds: Iterator[int]) -> None:
        self._rounds = rounds
        self._told = 0

    def propose(self, brief: Brief) -> Proposal | None:
        """The recipe with the next number of rounds; the label makes each one a program of its own."""
        if "train.py" not in brief.specialist.files:
            return None
        parent = brief.lineage.champion
        self._told += 1
        start = brief.recipe_of(0)
        head, _, tail = start.files["train.py"].partition(STATEMENT)
        _, _, tail = tail.partition(END)
        files = {**start.files, "train.py": head + STATEMENT + loop(self._told, next(self._rounds)) + tail}
        return Proposal(parent, Recipe(files), "a planted change of cost", "planted", None, None)


def loop(trial: int, rounds: int) -> str:
    """Statements that cost CPU time and do nothing."""
    return f"TRIAL = {trial}\nfor _ in range({rounds}):\n    pass\n{END}"


def play(rounds: list[int], folder: Path) -> Campaign:
    """A real campaign in which trial i spins `rounds[i]` times before it trains; 0 is the baseline."""
    copytree(find_task(TASK).folder, folder / "task")
    train = folder / "task" / "recipe" / "train.py"
    train.write_text(train.read_text().replace(STATEMENT, STATEMENT + loop(0, rounds[0])))
    task, key = Task.load(folder / "task"), folder / "evaluator.key"
    rounds = rounds[1:]
    SigningKey.create(key, "benchmark")
    bar = iter(track(range(len(rounds)), description=f"{len(rounds)} trials", transient=True))
    seen = 0
    with EventLog.create(folder / "ledger.db") as log, LocalRunner() as runner:
        bench = Bench(task, log, Planter(iter(rounds)), runner, key, folder / "work", "benchmark")

        def observe(event: Event, campaign: Campaign) -> None:
            nonlocal seen
            if campaign.concluded > seen:
                seen = campaign.concluded
                next(bar, None)

        return Supervisor(bench, "verdicts-1", 1, observe).run(StopRules(len(rounds)))


def kept(campaign: Campaign) -> int:
    """Trials that were kept."""
    return sum(trial.verdict is Verdict.KEPT for trial in campaign.trials.values())


def runs(campaign: Campaign) -> float:
    """Runs a trial, the baseline's left out."""
    return (sum(len(trial.runs) for trial in campaign.trials.values()) - 5) / max(1, len(campaign.trials) - 1)


def seconds(campaign: Campaign, trial: int) -> list[float]:
    """CPU seconds of training, run by run."""
    return [float(score.metrics["train_cpu_s"]) for score in campaign.trials[trial].scores]


@click.command()
@click.option("--quick", is_flag=True, help="5 trials of each kind.")
def main(quick: bool) -> None:
    """Keep rates of real campaigns on airbench-cpu; 15 minutes on 2 quiet cores.

    Example: python -m benchmarks.verdicts
    """
    trials = 5 if quick else 20
    spin = 20_000_000
    with tempfile.TemporaryDirectory() as name:
        same = play([0] * (trials + 1), _folder(name, "same"))
        probe = play([0, spin], _folder(name, "probe"))
        per_round = (statistics.fmean(seconds(probe, 1)) - statistics.fmean(seconds(probe, 0))) / spin
        spreads = [statistics.variance(sample) for trial in same.trials if len(sample := seconds(same, trial)) > 1]
        sigma = statistics.fmean(spreads) ** 0.5
        step = round(SIGMAS * sigma / per_round)
        planted = play([step * (trials - index) for index in range(trials + 1)], _folder(name, "planted"))
    click.echo(f"noise of one run: {sigma * 1000:.1f} ms CPU")
    click.echo(f"the unchanged champion: {kept(same)} of {trials} kept, {runs(same):.1f} runs a trial")
    better = f"{SIGMAS:g} sigma better ({step * per_round * 1000:.0f} ms)"
    click.echo(f"{better}, each on the last: {kept(planted)} of {trials} kept, {runs(planted):.1f} runs a trial")


def _folder(root: str, name: str) -> Path:
    folder = Path(root) / name
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
