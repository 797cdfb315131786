"""Events -> what a person reads while a campaign runs, and the summary at its end."""

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from evaluators.task import Contract
from evaluators.verdict import advantage
from ledger.campaign import Campaign, Trial
from ledger.events import (
    BaselineMeasured,
    CampaignResumed,
    CampaignStarted,
    Event,
    FailureLabelled,
    HypothesisProposed,
    ReplicateRequested,
    RunStarted,
    Summary,
    TrialAbandoned,
    VerdictReached,
)
from ledger.terminal import STYLES, plain
from ledger.vocabulary import FailureLabel, Verdict

HYPOTHESIS_WIDTH = 400


class Narrator:
    """Prints one line a trial; on a terminal a status line says what is running now."""

    def __init__(self, console: Console, contract: Contract, trials: int) -> None:
        self._console, self._contract, self._trials = console, contract, trials
        self._status = Status("", console=console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, event: Event, campaign: Campaign) -> None:
        """Told of each event by the supervisor."""
        match event.body:
            case CampaignStarted():
                self._print(Text.assemble((campaign.id, "bold"), f": {self._goal()}"))
            case CampaignResumed():
                self._print(Text.assemble((campaign.id, "bold"), f": resumed after {campaign.concluded} trials"))
            case BaselineMeasured() as body:
                gates = ", ".join(f"{name} {float(mean):.5g}" for name, mean in body.gates.items())
                legal = "clears the gates" if body.legal else "BREAKS a gate"
                self._line(
                    campaign.trials[0], f"{show_summary(body.score)}{self._contract.metric.suffix}, {legal}: {gates}"
                )
            case HypothesisProposed() as body:
                hypothesis = body.hypothesis[:HYPOTHESIS_WIDTH]
                head = f"{event.trial:>4}  {body.specialist:<6} "
                self._print(Text.assemble((head, "cyan"), f"on trial {body.parent}: {hypothesis}"))
            case ReplicateRequested() as body:
                self._print(Text(f"      {body.reason}", "dim"))
            case RunStarted() as body:
                self._running(campaign, event.trial or 0, body)
            case FailureLabelled(label=FailureLabel.INFRA_ERROR) as body:
                self._print(Text(f"      run {body.run} lost to the machine: {body.detail}", "yellow"))
            case VerdictReached() as body:
                trial = campaign.trials[event.trial or 0]
                label = f" ({body.label})" if body.label else ""
                label += ", the new champion:" if body.verdict is Verdict.KEPT else ""
                score = f"{show_summary(body.score)}{self._contract.metric.suffix}, " if body.score else ""
                self._line(trial, f"{score}{body.reason}", label)
            case TrialAbandoned() as body:
                self._print(Text(f"      trial {event.trial} abandoned: {body.reason}; lost: {body.lost}", "yellow"))

    def _running(self, campaign: Campaign, number: int, body: RunStarted) -> None:
        if self._status:
            trial = campaign.trials[number]
            runs = self._contract.seeds.trial if number else self._contract.seeds.baseline
            who = trial.proposal.specialist if trial.proposal else "baseline"
            best = "" if campaign.champion is None else f"champion: trial {campaign.champion} · "
            run = f"run {body.run + 1} of {runs}"
            text = f"{best}trial {number} of {self._trials} · {who} · {run} · since {time.strftime('%X')}"
            self._status.update(text)

    def _goal(self) -> str:
        metric = self._contract.metric
        gates = "".join(f", {gate}" for gate in self._contract.gates)
        unit = f" in{metric.suffix}" if metric.suffix else ""
        return f"{metric.direction} {metric.name}{unit}{gates}; {self._trials} trials"

    def _line(self, trial: Trial, text: str, label: str = "") -> None:
        verdict = trial.verdict
        assert verdict is not None
        self._print(
            Text.assemble(("   0  " if trial.number == 0 else "      "), (verdict + label, STYLES[verdict]), f" {text}")
        )

    def _print(self, text: Text) -> None:
        self._console.print(plain(text), soft_wrap=True)


def summarise(console: Console, contract: Contract, campaign: Campaign) -> None:
    """Champion, gain with its uncertainty, outcomes, failures by label, time spent."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    unit = contract.metric.suffix
    if (gained := advantage(contract, campaign)) is not None and campaign.champion is not None:
        best = campaign.trials[campaign.champion]
        assert best.outcome is not None
        table.add_row("champion", plain(Text(_champion(best))))
        table.add_row(contract.metric.name, f"{show_summary(best.outcome.score)}{unit}")
        if campaign.champion:
            confirmed = contract.seeds.confirm
            basis = "by its runs of confirmation" if confirmed else "not corrected for picking the best"
            table.add_row(
                "gain over baseline",
                f"{gained.gain:+.4g} ± {gained.half_width:.2g}{unit} ({gained.relative:+.1%}; 95 % interval, {basis})",
            )
        else:
            table.add_row("gain over baseline", "none: no trial was better than noise")
    outcomes = Counter(trial.verdict for trial in campaign.trials.values() if trial.number)
    table.add_row(
        "trials", ", ".join(f"{count} {verdict or 'abandoned'}" for verdict, count in outcomes.items()) or "none"
    )
    labels = Counter(
        trial.outcome.label for trial in campaign.trials.values() if isinstance(trial.outcome, VerdictReached)
    )
    failures = ", ".join(f"{count} {label}" for label, count in labels.most_common() if label)
    table.add_row("failures", failures or "none")
    seconds = [
        (facts.wall_s, facts.cpu_s)
        for trial in campaign.trials.values()
        for run in trial.runs
        if run.finished
        for facts in (run.finished.train, *run.finished.predict)
    ]
    wall, cpu = sum(pair[0] for pair in seconds), sum(pair[1] for pair in seconds)
    table.add_row("time in recipes", f"{wall:.0f} s wall, {cpu:.0f} s CPU")
    console.print(table)


def _champion(best: Trial) -> str:
    if best.proposal is None:
        return "trial 0, the starting recipe"
    return f"trial {best.number} by {best.proposal.specialist}: {best.proposal.hypothesis[:HYPOTHESIS_WIDTH]}"


def show_summary(score: Summary | None) -> str:
    """Mean, standard deviation and number of runs; nothing where there is no score."""
    return "" if score is None else f"{float(score.mean):.5g} ± {float(score.std):.2g} (n={score.n})"
