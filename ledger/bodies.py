"""What each type of event says: the frozen bodies, their versions, and the catalogue of all of them."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints

from ledger.imported import RecordImported
from ledger.parts import Body, Count, Decimal, Digest, Part, Redactable, Seconds
from ledger.vocabulary import Domain, FailureLabel, Trust, Verdict


class Epoch(Part):
    """The digests that must stay the same for two scores to be compared."""

    task: Digest
    evaluator: Digest
    data: Digest
    environment: Digest


class Summary(Part):
    """A score over several seeds, in the unit of the task's metric."""

    mean: Decimal
    std: Decimal
    """Sample standard deviation over seeds (n - 1 in the denominator); 0.0 where n is 1."""
    n: Count


class ProcessFacts(Part):
    """What the runner saw of one process tree of the recipe; no opinion."""

    exit_code: int | None
    signal: int | None
    killed_for: Literal["wall", "cpu", "memory", "log", "disk", "processes", "runner", "stopped"] | None
    """The budget that it passed; `runner` where it took the runner's own process with it, `stopped` by a person."""
    wall_s: Seconds
    cpu_s: Seconds
    """User and system time of the process and every child it waited for, from fork to exit.

    This and the counts below are 0 where `killed_for` is `runner`: nobody was left to count.
    """
    max_rss_bytes: Count
    log_bytes: Count
    written_bytes: Count | None = None
    """Bytes sent to storage; none where the kernel does not count them. Since version 3 of run_finished."""
    waited_s: Seconds | None = None
    """How long the main thread was ready to run and had no core: contention. Since version 3 of run_finished."""


class CampaignStarted(Body):
    """A supervised search on one task begins; everything that decides a verdict is fixed here."""

    TYPE: ClassVar[str] = "campaign_started"
    task: str
    epoch: Epoch
    metric: str
    unit: str
    direction: Literal["minimize", "maximize"]
    specialists: tuple[str, ...]
    proposer: str
    search_seed: Count
    recipe: Digest
    """The starting recipe: trial 0."""
    evaluator_key: str
    """Ed25519 public key of the evaluator, as `name+hash+base64` (C2SP signed-note verifier key)."""
    isolation: str
    environment: Mapping[str, str]
    program: str
    """Name and version of the writing program."""


class CampaignResumed(Body):
    """A new supervisor process goes on with the campaign, perhaps in another measurement epoch."""

    TYPE: ClassVar[str] = "campaign_resumed"
    epoch: Epoch
    isolation: str
    environment: Mapping[str, str]
    program: str


class CampaignStopped(Body):
    """The supervisor ends: a stop rule, a person, or a reason that forbids going on."""

    TYPE: ClassVar[str] = "campaign_stopped"
    reason: Literal["trials", "hours", "interrupted", "baseline_illegal", "exhausted", "error"]
    detail: Redactable
    trials: Count
    champion: Count | None
    wall_s: Seconds


class BaselineMeasured(Body):
    """Trial 0 is judged: the starting recipe's score, its noise, and whether it clears the gates."""

    TYPE: ClassVar[str] = "baseline_measured"
    recipe: Digest
    score: Summary
    gates: Mapping[str, Decimal]
    """Mean over seeds of each gated metric."""
    legal: bool


class SessionStarted(Body):
    """One conversation of a specialist begins; it may produce one trial."""

    TYPE: ClassVar[str] = "session_started"
    session: str
    specialist: str
    domain: Domain
    proposer: str
    model: str | None


class LineageViewed(Body):
    """What the specialist saw: the lineage text rendered from the views as of event `as_of`."""

    TYPE: ClassVar[str] = "lineage_viewed"
    session: str
    as_of: Count
    view: Digest
    renderer: str


class ModelCalled(Body):
    """One request to a language model; both sides are blobs."""

    TYPE: ClassVar[str] = "model_called"
    session: str
    model: str
    request: Digest
    response: Digest
    input_tokens: Count
    output_tokens: Count
    usd: Decimal
    latency_s: Seconds


class SessionEnded(Body):
    """The conversation is over."""

    TYPE: ClassVar[str] = "session_ended"
    session: str
    outcome: Literal["submitted", "declined", "error"]
    detail: Redactable


class HypothesisProposed(Body):
    """A trial begins: what the specialist expects from changing which domain of which parent."""

    TYPE: ClassVar[str] = "hypothesis_proposed"
    session: str
    specialist: str
    claimed_domain: Domain
    hypothesis: Annotated[Redactable, StringConstraints(min_length=1)]
    expected_delta: Decimal | None
    """Expected change of the metric's mean against the parent, in the metric's unit, signed as the metric is."""
    rationale: Redactable
    operator: str | None
    """Name of the program edit, where the proposer draws from a catalogue."""
    parent: Count


class DiffSubmitted(Body):
    """The executable edit: a unified diff that turns the parent's recipe into this trial's."""

    TYPE: ClassVar[str] = "diff_submitted"
    parent: Count
    parent_recipe: Digest
    recipe: Digest
    diff: Digest
    files: tuple[str, ...]
    program: Digest
    """Digest of the program up to comments and formatting: equal digests are replicates."""


class DomainObserved(Body):
    """What a trial's edit really changed, by an auditor; a later observation of a trial stands before earlier ones."""

    TYPE: ClassVar[str] = "domain_observed"
    method: Literal["code", "text", "claude"]
    """From both versions of the program; from the author's words by rules; from these words by a language model."""
    classifier: str
    """Name and version of the rules or of the prompt: equal ones give equal answers from equal code."""
    parent_recipe: Digest | None
    """The two recipes that were compared; none where there was only text."""
    recipe: Digest | None
    observed_domain: Domain | None
    """The primary surface; none where the edit changes nothing in meaning."""
    shares: Mapping[Domain, Decimal]
    """Every surface that changed, with its share of the edit."""
    kind: Literal["structural", "dimensional", "scalar"] | None
    strict_arch: bool
    """Whether the model's forward computation changed structurally."""
    undeclared: tuple[str, ...]
    """Changes that the hypothesis does not mention: `surface file symbol`."""
    evidence: Redactable
    """One line: the change that weighs most, or the words that say it."""
    model: str | None
    """The language model that answered, and what it took; none for rules."""
    input_tokens: Count | None
    output_tokens: Count | None
    request: Digest | None
    """Both sides of the call, as blobs."""
    response: Digest | None


class TrialRejected(Body):
    """A gate refused the trial before a run."""

    TYPE: ClassVar[str] = "trial_rejected"
    label: FailureLabel
    detail: Redactable


class RunStarted(Body):
    """One execution of a trial's recipe: one seed, one attempt."""

    TYPE: ClassVar[str] = "run_started"
    run: Count
    seed: Count
    attempt: Count
    recipe: Digest
    runner: str
    isolation: str


class RunFinished(Body):
    """Facts of one run."""

    TYPE: ClassVar[str] = "run_finished"
    VERSION: ClassVar[int] = 3
    run: Count
    train: ProcessFacts
    predict: tuple[ProcessFacts, ...]
    artifact: Digest | None
    """Digest of the manifest {path: sha256} of the output folder; none where training left nothing."""
    artifact_bytes: Count | None
    log: Digest
    load_1m: Seconds
    """The machine's one-minute load average when the run began: a stamp of contention."""
    accelerator_peak_bytes: Count | None = None
    """Peak device memory as the driver reports it; none where the run had no accelerator. Since version 2."""
    host: str | None = None
    """Name of the machine. Since version 3, as all below."""
    gpus: tuple[str, ...] | None = None
    """Models of the GPUs that the recipe could see."""
    threads: Count | None = None
    """Threads that numeric libraries were told to use."""


class ScoreRecorded(Body):
    """What the evaluator measured in one run; signed with its key over the statement of `evaluators.signing`."""

    TYPE: ClassVar[str] = "score_recorded"
    run: Count
    seed: Count
    metrics: Mapping[str, Decimal]
    trust: Trust
    nonce: Count
    """Draws the order and probes of the challenge; chosen after the recipe was frozen."""
    recipe: Digest
    artifact: Digest
    epoch: Epoch
    signature: str
    """Ed25519 signature, base64."""


class FailureLabelled(Body):
    """Why a run or a trial has no score that counts."""

    TYPE: ClassVar[str] = "failure_labelled"
    label: FailureLabel
    run: Count | None
    detail: Redactable


class VerdictReached(Body):
    """The trial is judged by the pure rule of `evaluators.verdict`."""

    TYPE: ClassVar[str] = "verdict_reached"
    verdict: Verdict
    label: FailureLabel | None
    score: Summary | None
    champion: Count
    """The champion that the trial was judged against."""
    gain: Decimal | None
    """Improvement of the mean over the champion's mean in the metric's unit; positive is better."""
    p_value: Decimal | None
    """One-sided: how likely so large a gain is if the trial is no better than the champion."""
    reason: Redactable


class TrialAbandoned(Body):
    """The supervisor died or was stopped during the trial; says what is lost."""

    TYPE: ClassVar[str] = "trial_abandoned"
    reason: Redactable
    lost: Redactable


class ReplicateRequested(Body):
    """A champion is to be measured again, in turn with the trial that challenges it."""

    TYPE: ClassVar[str] = "replicate_requested"
    challenger: Count
    """The promising trial; its runs and the champion's share seeds from here on."""
    runs: Count
    reason: Redactable


class CertificationRecorded(Body):
    """The champion was measured once on data and seeds that the search never used; signed like a score."""

    TYPE: ClassVar[str] = "certification_recorded"
    recipe: Digest
    seeds: tuple[Count, ...]
    artifacts: tuple[Digest, ...]
    """One a seed; one less where the last run left none."""
    values: tuple[Decimal, ...]
    """The task's metric, one a seed; empty where a run failed."""
    score: Summary | None
    gates: Mapping[str, Decimal]
    """Mean over seeds of each gated metric."""
    legal: bool
    """Whether every run was measured and every gate holds."""
    label: FailureLabel | None
    """Why a run could not be measured."""
    epoch: Epoch
    signature: str


class CorrectionRecorded(Body):
    """A statement about an earlier event; the original stays as it is."""

    TYPE: ClassVar[str] = "correction_recorded"
    target: Count
    author: str
    reason: Annotated[Redactable, StringConstraints(min_length=1)]
    statement: Redactable


class CheckpointSigned(Body):
    """The log's key signed a tree head of this log."""

    TYPE: ClassVar[str] = "checkpoint_signed"
    size: Count
    root: Digest
    note: str


BODIES: tuple[type[Body], ...] = (
    CampaignStarted,
    CampaignResumed,
    CampaignStopped,
    BaselineMeasured,
    SessionStarted,
    LineageViewed,
    ModelCalled,
    SessionEnded,
    HypothesisProposed,
    DiffSubmitted,
    DomainObserved,
    TrialRejected,
    RunStarted,
    RunFinished,
    ScoreRecorded,
    FailureLabelled,
    VerdictReached,
    TrialAbandoned,
    ReplicateRequested,
    CertificationRecorded,
    CorrectionRecorded,
    CheckpointSigned,
    RecordImported,
)
CATALOGUE: dict[str, type[Body]] = {body.TYPE: body for body in BODIES}
