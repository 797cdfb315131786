"""Large ledgers for benchmarks: campaigns as a search leaves them, with made-up numbers and texts, without blobs."""

import random
import uuid
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

from ledger.events import (
    BaselineMeasured,
    Body,
    CampaignStarted,
    CampaignStopped,
    DiffSubmitted,
    Draft,
    Epoch,
    FailureLabelled,
    HypothesisProposed,
    LineageViewed,
    ModelCalled,
    ProcessFacts,
    RunFinished,
    RunStarted,
    ScoreRecorded,
    SessionEnded,
    SessionStarted,
    Summary,
    TrialRejected,
    VerdictReached,
    decimal,
)
from ledger.log import EventLog
from ledger.vocabulary import Domain, FailureLabel, Trust, Verdict

TRIALS_A_CAMPAIGN = 1_000
SEEDS = 2
BATCH = 20_000
ROSTER = (
    ("arch", Domain.ARCH),
    ("opt", Domain.OPT),
    ("sched", Domain.SCHED),
    ("reg", Domain.REG),
    ("data", Domain.DATA),
)
BEFORE_A_RUN = (FailureLabel.SYNTAX_ERROR, FailureLabel.FORBIDDEN_EDIT, FailureLabel.DUPLICATE_RECIPE)
IN_A_RUN = (
    FailureLabel.CRASH,
    FailureLabel.OUT_OF_MEMORY,
    FailureLabel.TRAIN_OVER_BUDGET,
    FailureLabel.NONFINITE_METRIC,
)
EDITS = ("Raise the learning rate of the first stage", "Widen the second layer", "Shorten the warm-up of the schedule")
REASONS = (
    "It was better than the champion of its time, within noise",
    "Two trials at the same place failed",
    "Untried",
)


def ledger_of(trials: int, folder: Path) -> Path:
    """A ledger with so many trials (about 11 events each), made on first use and kept in `folder`."""
    path = folder / f"labtrail-synthetic-{trials}.db"
    if not path.exists():
        draft = folder / f"{path.name}.{uuid.uuid4().hex}"
        with EventLog.create(draft) as log:
            drafts = events_of(trials)
            while batch := list(islice(drafts, BATCH)):
                log.append(batch)
        draft.rename(path)
        for suffix in ("-wal", "-shm", ".lock"):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    return path


def events_of(trials: int) -> Iterator[Draft]:
    """Drafts of campaigns with so many trials in all."""
    for number, first in enumerate(range(0, trials, TRIALS_A_CAMPAIGN)):
        yield from _Campaign(f"synthetic-task-{number + 1}", number).events(min(TRIALS_A_CAMPAIGN, trials - first))


class _Campaign:
    """One campaign: a champion that improves slowly, and a parent that is mostly the champion."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)
        self.champion, self.scores = 0, {0: 2.0}
        self.recipes = {0: self.digest("recipe", 0)}
        self.epoch = Epoch(**{part: self.digest(part) for part in ("task", "evaluator", "data", "environment")})

    def digest(self, *parts: object) -> str:
        return sha256(repr((self.name, parts)).encode()).hexdigest()

    def draft(self, actor: str, body: Body, trial: int | None = None) -> Draft:
        return Draft(body, actor, self.name, trial, id=str(uuid.UUID(int=self.random.getrandbits(128))))

    def events(self, trials: int) -> Iterator[Draft]:
        started = CampaignStarted(
            task="synthetic-task",
            epoch=self.epoch,
            metric="val_loss",
            unit="nat",
            direction="minimize",
            specialists=tuple(name for name, _ in ROSTER),
            proposer="synthetic",
            search_seed=0,
            recipe=self.recipes[0],
            evaluator_key="synthetic+00000000+AAAA",
            isolation="none",
            environment={"python": "3.11", "cores": "2"},
            program="labtrail synthetic",
        )
        yield self.draft("supervisor:labtrail", started)
        for run in range(SEEDS):
            yield from self.run(0, run, fails=False)
        baseline = BaselineMeasured(
            recipe=self.recipes[0], score=self.summary(0), gates={"accuracy": "0.9"}, legal=True
        )
        yield self.draft("evaluator:verdict", baseline, 0)
        for number in range(1, trials):
            yield from self.trial(number)
        stopped = CampaignStopped(
            reason="trials", detail="enough", trials=trials - 1, champion=self.champion, wall_s=3600.0
        )
        yield self.draft("supervisor:labtrail", stopped)

    def trial(self, number: int) -> Iterator[Draft]:
        specialist, domain = self.random.choice(ROSTER)
        session = f"{self.name}/{number}"
        parent = self.champion if self.random.random() < 0.8 else self.random.choice(list(self.scores)[-20:])
        yield from self.session(number, session, specialist, domain, parent)
        fate = self.random.random()
        if fate < 0.10:
            label = self.random.choice(BEFORE_A_RUN)
            yield self.draft("gate:legality", TrialRejected(label=label, detail="line 12 of train.py"), number)
            yield self.verdict(number, Verdict.FAILED, label)
        elif fate < 0.22:
            label = self.random.choice(IN_A_RUN)
            yield from self.run(number, 0, fails=True)
            failed = FailureLabelled(label=label, run=0, detail="exit code 1: RuntimeError: the loss is not a number")
            yield self.draft("evaluator:labels", failed, number)
            yield self.verdict(number, Verdict.FAILED, label)
        else:
            kept = fate > 0.96
            self.scores[number] = self.scores[self.champion] + self.random.gauss(0.01, 0.02) * (not kept) - 0.001 * kept
            for run in range(SEEDS):
                yield from self.run(number, run, fails=False)
            yield self.verdict(number, Verdict.KEPT if kept else Verdict.DISCARDED, None)
            self.champion = number if kept else self.champion

    def session(self, number: int, session: str, specialist: str, domain: Domain, parent: int) -> Iterator[Draft]:
        self.recipes[number] = self.digest("recipe", number)
        yield self.draft(
            "supervisor:labtrail",
            SessionStarted(session=session, specialist=specialist, domain=domain, proposer="synthetic", model="toy"),
        )
        view = LineageViewed(session=session, as_of=number, view=self.digest("view", number), renderer="lineage-1")
        yield self.draft("supervisor:labtrail", view)
        called = ModelCalled(
            session=session,
            model="toy",
            request=self.digest("request", number),
            response=self.digest("response", number),
            input_tokens=self.random.randrange(2_000, 20_000),
            output_tokens=self.random.randrange(100, 2_000),
            usd=decimal(self.random.randrange(10_000, 90_000) / 1e6),
            latency_s=self.random.uniform(1, 20),
        )
        yield self.draft("supervisor:labtrail", called)
        proposed = HypothesisProposed(
            session=session,
            specialist=specialist,
            claimed_domain=domain,
            hypothesis=f"{self.random.choice(EDITS)}; expected val_loss -0.01 nat in trial {number}.",
            expected_delta="-0.01",
            rationale=f"{self.random.choice(REASONS)}; at train.py:{number % 90}: trial {parent} (x1.4) promising.",
            operator=f"scale_constant@train.py:{number % 90} x1.4",
            parent=parent,
        )
        yield self.draft(f"specialist:{specialist}", proposed, number)
        submitted = DiffSubmitted(
            parent=parent,
            parent_recipe=self.recipes[parent],
            recipe=self.recipes[number],
            diff=self.digest("diff", number),
            files=("train.py",),
            program=self.digest("program", number),
        )
        yield self.draft(f"specialist:{specialist}", submitted, number)
        ended = SessionEnded(session=session, outcome="submitted", detail=f"trial {number}")
        yield self.draft("supervisor:labtrail", ended)

    def run(self, number: int, run: int, fails: bool) -> Iterator[Draft]:
        seed, artifact = 1000 * number + run, self.digest("artifact", number, run)
        recipe = self.recipes[number]
        started = RunStarted(run=run, seed=seed, attempt=0, recipe=recipe, runner="synthetic", isolation="none")
        yield self.draft("runner:synthetic", started, number)
        finished = RunFinished(
            run=run,
            train=self.process(1 if fails else 0, 20.0),
            predict=() if fails else (self.process(0, 1.0), self.process(0, 0.5)),
            artifact=None if fails else artifact,
            artifact_bytes=None if fails else 100_000 + number,
            log=self.digest("log", number, run),
            load_1m=self.random.random(),
        )
        yield self.draft("runner:synthetic", finished, number)
        if not fails:
            loss = decimal(self.scores[number] + self.random.gauss(0, 0.002))
            score = ScoreRecorded(
                run=run,
                seed=seed,
                metrics={"accuracy": "0.9", "artifact_bytes": "100000.0", "train_wall_s": "20.1", "val_loss": loss},
                trust=Trust.MEASURED,
                nonce=self.random.randrange(2**53),
                recipe=recipe,
                artifact=artifact,
                epoch=self.epoch,
                signature="A" * 86 + "==",
            )
            yield self.draft("evaluator:synthetic", score, number)

    def process(self, exit_code: int, wall_s: float) -> ProcessFacts:
        wall_s *= self.random.uniform(0.9, 1.1)
        return ProcessFacts(
            exit_code=exit_code,
            signal=None,
            killed_for=None,
            wall_s=wall_s,
            cpu_s=wall_s * 1.9,
            max_rss_bytes=10**8 + self.random.randrange(10**7),
            log_bytes=400,
        )

    def summary(self, number: int) -> Summary:
        return Summary(mean=decimal(self.scores[number]), std="0.002", n=SEEDS)

    def verdict(self, number: int, verdict: Verdict, label: FailureLabel | None) -> Draft:
        measured = label is None
        gain = decimal(self.scores[self.champion] - self.scores[number]) if measured else None
        body = VerdictReached(
            verdict=verdict,
            label=label,
            score=self.summary(number) if measured else None,
            champion=self.champion,
            gain=gain,
            p_value=decimal(self.random.random()) if measured else None,
            reason=str(label) if label else "gain within noise: p 0.41 over 2 seeds against the champion's 2",
        )
        return self.draft("evaluator:verdict", body, number)
