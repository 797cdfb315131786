"""Writes a legal campaign without running anything: real contract, diffs, facts, signatures and verdicts."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, islice

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evaluators import gates
from evaluators.labels import label_of, score_facts
from evaluators.signing import sign
from evaluators.task import (
    Budgets,
    Contract,
    EvaluatorContract,
    Gate,
    Legality,
    Metric,
    Noise,
    RecipeContract,
    Seeds,
    Specialist,
)
from evaluators.verdict import gate_failure, judge, judge_baseline
from ledger.campaign import Campaign, Trial
from ledger.events import (
    Body,
    CampaignResumed,
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
    TrialAbandoned,
    TrialRejected,
    decimal,
)
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.recipes import Recipe, diff, digest_of
from ledger.vocabulary import Domain, FailureLabel, Trust

KEY = SigningKey("toy-evaluator", Ed25519PrivateKey.from_private_bytes(sha256(b"toy-evaluator").digest()))
"""The evaluator's key of every campaign written here."""
RECIPE = Recipe(
    {
        "model.py": "WIDTH = 8  # channels\n\n\ndef model(x):\n    return WIDTH * x\n",
        "train.py": "import math\n\nLEARNING_RATE = 0.1\nEPOCHS = 3\n\nprint(math.exp(-LEARNING_RATE * EPOCHS))\n",
    }
)
CONTRACT = Contract(
    name="toy-loss",
    title="A toy without computation",
    recipe=RecipeContract(
        dir="recipe",
        files=("model.py", "train.py"),
        train=("python", "train.py"),
        predict=("python", "model.py"),
        max_bytes=2_000,
    ),
    metric=Metric(name="val_loss", unit="nat", direction="minimize"),
    gates=(Gate(metric="accuracy", at_least=0.5, label=FailureLabel.BELOW_GATE),),
    budgets=Budgets(train_s=30.0, predict_s=10.0, memory_bytes=10**9, log_bytes=10**6, processes=8, threads=2),
    seeds=Seeds(baseline=3, trial=2),
    noise=Noise(confidence=0.95),
    evaluator=EvaluatorContract(module="measure.py"),
    legality=Legality(forbidden_imports=("subprocess",), forbidden_calls=("eval",)),
    specialists=(
        Specialist(name="arch", domain=Domain.ARCH, charter="The model.", files=("model.py",)),
        Specialist(name="opt", domain=Domain.OPT, charter="The optimiser.", files=("train.py",)),
    ),
)
EPOCH = Epoch(
    task=CONTRACT.digest, evaluator=digest_of(b"evaluator"), data=digest_of(b"data"), environment=digest_of(b"machine")
)
ENVIRONMENT = {"python": "3.11.7", "cores": "2"}
NOISE_STD = 0.002
BASELINE_LOSS = 2.0

Edit = Callable[[int], tuple[str, str, str]]
"""Trial number -> (file, old text, new text)."""
Ending = Callable[["_Writer", Trial], None]
"""What becomes of a submitted trial."""


@dataclass(frozen=True)
class Plot:
    """The story of one kind of trial."""

    specialist: str
    edit: Edit
    ending: Ending


def write_campaign(log: EventLog, name: str = "toy-1", trials: int = 12, seed: int = 0) -> None:
    """Append a whole campaign that every check accepts.

    The first eight trials are kept, discarded, rejected, crashed, disqualified, abandoned (with a new supervisor
    after it), measured after an infrastructure failure, and refused by another gate; then the plots repeat.
    """
    writer = _Writer(log, name, seed)
    writer.start()
    writer.measure_baseline()
    for plot in islice(cycle(PLOTS), trials):
        writer.try_once(plot)
    writer.decline()
    writer.stop()


class _Writer:
    """The pen of one campaign: appends what a supervisor would, and folds it as a supervisor does."""

    def __init__(self, log: EventLog, name: str, seed: int) -> None:
        self.log, self.random = log, random.Random(f"{name}/{seed}")
        self.search_seed = seed
        self.campaign = Campaign(name)
        self.recipes = {0: RECIPE}
        self.programs = {RECIPE.program: 0}
        self.session = ""

    def append(self, actor: str, *bodies: Body, trial: int | None = None, blobs: tuple[bytes, ...] = ()) -> None:
        """Blobs go with the last body."""
        last = len(bodies) - 1
        drafts = [
            Draft(body, actor, self.campaign.id, trial, blobs if index == last else ())
            for index, body in enumerate(bodies)
        ]
        for event in self.log.append(drafts):
            self.campaign.apply(event)

    def start(self) -> None:
        body = CampaignStarted(
            task=CONTRACT.name,
            epoch=EPOCH,
            metric=CONTRACT.metric.name,
            unit=CONTRACT.metric.unit,
            direction=CONTRACT.metric.direction,
            specialists=tuple(specialist.name for specialist in CONTRACT.specialists),
            proposer="script",
            search_seed=self.search_seed,
            recipe=RECIPE.digest,
            evaluator_key=str(KEY.verifier),
            isolation="none",
            environment=ENVIRONMENT,
            program="labtrail test",
        )
        self.append("supervisor:labtrail", body, blobs=(CONTRACT.blob, *RECIPE.blobs))

    def stop(self) -> None:
        body = CampaignStopped(
            reason="trials",
            detail="enough",
            trials=self.campaign.concluded,
            champion=self.campaign.champion,
            wall_s=60.0,
        )
        self.append("supervisor:labtrail", body)

    def resume(self) -> None:
        """A new supervisor process: it closes what the last one left open."""
        resumed = CampaignResumed(epoch=EPOCH, isolation="none", environment=ENVIRONMENT, program="labtrail test")
        self.append("supervisor:labtrail", resumed)

    def measure_baseline(self) -> None:
        for _ in range(CONTRACT.seeds.baseline):
            self.score(0, BASELINE_LOSS)
        self.append("evaluator:verdict", judge_baseline(CONTRACT, self.campaign.trials[0]), trial=0)

    def try_once(self, plot: Plot) -> None:
        """Session, hypothesis, diff, gate; then the plot's ending for what passes."""
        number = len(self.campaign.trials)
        parent = self.campaign.champion or 0
        specialist = CONTRACT.specialist(plot.specialist)
        self.open_session(specialist)
        child = self._edited(parent, plot.edit(number))
        self._submit(number, parent, specialist, child)
        refused = gates.check(CONTRACT, specialist, self.recipes[parent], child, self.programs)
        self.recipes[number] = child
        self.programs.setdefault(_program(child), number)
        if refused:
            self.append("gate:legality", TrialRejected(label=refused.label, detail=refused.detail), trial=number)
            self.judge(number)
        else:
            plot.ending(self, self.campaign.trials[number])

    def open_session(self, specialist: Specialist) -> None:
        """Opened, shown the lineage, and one model call."""
        self.session = f"{self.campaign.id}/{self.log.size}"
        view, request, response = (f"{part} of {self.session}\n".encode() for part in ("view", "request", "response"))
        started = SessionStarted(
            session=self.session,
            specialist=specialist.name,
            domain=specialist.domain,
            proposer="script",
            model="toy-model",
        )
        seen = LineageViewed(session=self.session, as_of=self.log.size - 1, view=digest_of(view), renderer="toy-1")
        called = ModelCalled(
            session=self.session,
            model="toy-model",
            request=digest_of(request),
            response=digest_of(response),
            input_tokens=1000,
            output_tokens=100,
            usd="0.01",
            latency_s=1.5,
        )
        self.append("supervisor:labtrail", started, seen, called, blobs=(view, request, response))

    def decline(self) -> None:
        """A session without a trial."""
        self.open_session(CONTRACT.specialists[0])
        ended = SessionEnded(session=self.session, outcome="declined", detail="nothing left to try")
        self.append("supervisor:labtrail", ended)

    def run(self, number: int, finished: RunFinished, attempt: int = 0) -> None:
        """One run with these facts."""
        log = f"run {finished.run} of trial {number}\n".encode()
        started = RunStarted(
            run=finished.run,
            seed=self.seed_of(number),
            attempt=attempt,
            recipe=self.recipes[number].digest,
            runner="toy",
            isolation="none",
        )
        facts = finished.model_copy(update={"log": digest_of(log)})
        self.append("runner:toy", started, facts, trial=number, blobs=(log,))

    def seed_of(self, number: int) -> int:
        """Of the next run: each scored run has a seed of its own, a repeated one keeps it."""
        return 1000 * number + len(self.trial(number).scores)

    def score(self, number: int, loss: float, accuracy: float = 0.9, attempt: int = 0) -> None:
        """One run that ends well, with its signed score."""
        finished = self.facts(number, well())
        self.run(number, finished, attempt)
        metrics = {
            "val_loss": loss + self.random.gauss(0, NOISE_STD),
            "accuracy": accuracy + self.random.gauss(0, 0.01),
            **score_facts(finished, self.recipes[number].size_bytes),
        }
        assert finished.artifact is not None
        unsigned = ScoreRecorded(
            run=finished.run,
            seed=self.trial(number).runs[-1].started.seed,
            metrics={name: decimal(value) for name, value in sorted(metrics.items())},
            trust=Trust.MEASURED,
            nonce=self.random.randrange(2**53),
            recipe=self.recipes[number].digest,
            artifact=finished.artifact,
            epoch=EPOCH,
            signature="",
        )
        signature = sign(KEY, self.campaign.id, number, unsigned)
        self.append("evaluator:toy-loss", unsigned.model_copy(update={"signature": signature}), trial=number)

    def facts(self, number: int, train: ProcessFacts, predict: Sequence[ProcessFacts] = ()) -> RunFinished:
        """Facts of the trial's next run; two predictions and an artifact where training ended well."""
        ended_well = train.exit_code == 0
        return RunFinished(
            run=len(self.trial(number).runs),
            train=train,
            predict=tuple(predict) or ((well(0.5), well(0.25)) if ended_well else ()),
            artifact=digest_of(f"artifact {number} {len(self.trial(number).runs)}".encode()) if ended_well else None,
            artifact_bytes=500 + number if ended_well else None,
            log=digest_of(b""),
            load_1m=0.25,
        )

    def label(self, number: int, label: FailureLabel, detail: str, run: int | None) -> None:
        self.append("evaluator:labels", FailureLabelled(label=label, run=run, detail=detail), trial=number)

    def judge(self, number: int) -> None:
        """The gates on the mean, then the verdict, both by the real rules."""
        trial = self.trial(number)
        if trial.scores and trial.failure is None and (failure := gate_failure(CONTRACT, trial)):
            self.label(number, failure[0], failure[1], None)
        self.append("evaluator:verdict", judge(CONTRACT, self.campaign, self.trial(number)), trial=number)

    def trial(self, number: int) -> Trial:
        return self.campaign.trials.get(number, Trial(number))

    def loss_of_champion(self) -> float:
        outcome = self.trial(self.campaign.champion or 0).outcome
        assert outcome is not None
        assert outcome.score is not None
        return float(outcome.score.mean)

    def _edited(self, parent: int, edit: tuple[str, str, str]) -> Recipe:
        path, old, new = edit
        files = dict(self.recipes[parent].files)
        line = next(line for line in files[path].splitlines() if line.startswith(old))
        return Recipe({**files, path: files[path].replace(line, new, 1)})

    def _submit(self, number: int, parent: int, specialist: Specialist, child: Recipe) -> None:
        before = self.recipes[parent]
        patch = diff(before, child).encode()
        proposed = HypothesisProposed(
            session=self.session,
            specialist=specialist.name,
            claimed_domain=specialist.domain,
            hypothesis=f"edit {number} lowers the loss",
            expected_delta="-0.01",
            rationale="because the toy says so",
            operator=None if number % 2 else "toy-operator",
            parent=parent,
        )
        submitted = DiffSubmitted(
            parent=parent,
            parent_recipe=before.digest,
            recipe=child.digest,
            diff=digest_of(patch),
            files=tuple(sorted(path for path in child.files if child.files[path] != before.files.get(path))),
            program=_program(child),
        )
        actor = f"specialist:{specialist.name}"
        self.append(actor, proposed, submitted, trial=number, blobs=(patch, *child.blobs))
        ended = SessionEnded(session=self.session, outcome="submitted", detail=f"trial {number}")
        self.append("supervisor:labtrail", ended)


def well(wall_s: float = 2.0) -> ProcessFacts:
    """A process that ended with exit code 0."""
    return ProcessFacts(
        exit_code=0, signal=None, killed_for=None, wall_s=wall_s, cpu_s=wall_s / 2, max_rss_bytes=10**8, log_bytes=30
    )


def _program(recipe: Recipe) -> str:
    try:
        return recipe.program
    except SyntaxError:
        return recipe.digest


def _learning_rate(number: int) -> tuple[str, str, str]:
    return "train.py", "LEARNING_RATE", f"LEARNING_RATE = 0.1 + {number} / 1000"


def _width(number: int) -> tuple[str, str, str]:
    return "model.py", "WIDTH", f"WIDTH = {8 + number}  # channels"


def _comment(number: int) -> tuple[str, str, str]:
    return "train.py", "import math", f"import math  # remark {number}"


def _unclosed(number: int) -> tuple[str, str, str]:
    return "train.py", "EPOCHS", f"EPOCHS = ({number}"


def _better(writer: _Writer, trial: Trial) -> None:
    loss = writer.loss_of_champion() - 0.05
    for _ in range(CONTRACT.seeds.trial):
        writer.score(trial.number, loss)
    writer.judge(trial.number)


def _worse(writer: _Writer, trial: Trial) -> None:
    for _ in range(CONTRACT.seeds.trial):
        writer.score(trial.number, writer.loss_of_champion() + 0.02)
    writer.judge(trial.number)


def _inaccurate(writer: _Writer, trial: Trial) -> None:
    for _ in range(CONTRACT.seeds.trial):
        writer.score(trial.number, writer.loss_of_champion() - 0.3, accuracy=0.3)
    writer.judge(trial.number)


def _crashing(writer: _Writer, trial: Trial) -> None:
    finished = writer.facts(trial.number, well().model_copy(update={"exit_code": 1}))
    writer.run(trial.number, finished)
    shown = label_of(CONTRACT, finished)
    assert shown is not None
    writer.label(trial.number, shown[0], shown[1], finished.run)
    writer.judge(trial.number)


def _abandoned(writer: _Writer, trial: Trial) -> None:
    writer.score(trial.number, writer.loss_of_champion())
    writer.resume()
    lost = TrialAbandoned(reason="the supervisor ended during the trial", lost="0 runs under way and 1 of 2 scores")
    writer.append("supervisor:labtrail", lost, trial=trial.number)


def _retried(writer: _Writer, trial: Trial) -> None:
    writer.run(trial.number, writer.facts(trial.number, well()))
    writer.label(trial.number, FailureLabel.INFRA_ERROR, "the measuring process ended", 0)
    for attempt in (1, 0):
        writer.score(trial.number, writer.loss_of_champion() + 0.01, attempt=attempt)
    writer.judge(trial.number)


PLOTS = (
    Plot("opt", _learning_rate, _better),
    Plot("arch", _width, _worse),
    Plot("opt", _comment, _worse),
    Plot("opt", _learning_rate, _crashing),
    Plot("arch", _width, _inaccurate),
    Plot("opt", _learning_rate, _abandoned),
    Plot("arch", _width, _retried),
    Plot("opt", _unclosed, _worse),
)
"""The third and the last are refused by a gate before they come to their ending."""
