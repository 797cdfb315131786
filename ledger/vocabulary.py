"""The closed sets of words that events, views, audits and prompts share."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What became of a trial that was judged."""

    BASELINE = "baseline"
    KEPT = "kept"
    DISCARDED = "discarded"
    DISQUALIFIED = "disqualified"
    FAILED = "failed"


class Trust(StrEnum):
    """Who stands behind a score, strongest first."""

    MEASURED = "measured"
    WITNESSED = "witnessed"
    SELF_REPORTED = "self_reported"


class Domain(StrEnum):
    """The surfaces of a training recipe that an edit can change."""

    ARCH = "arch"
    OPT = "opt"
    SCHED = "sched"
    REG = "reg"
    LOSS = "loss"
    DATA = "data"
    QUANT = "quant"
    EVAL = "eval"
    SYS = "sys"


class Role(StrEnum):
    """Who may author an event; an actor is written `role:name`."""

    SUPERVISOR = "supervisor"
    SPECIALIST = "specialist"
    GATE = "gate"
    RUNNER = "runner"
    EVALUATOR = "evaluator"
    IMPORTER = "importer"
    AUDITOR = "auditor"
    PERSON = "person"


class Evidence(StrEnum):
    """What a record may hold about a trial, for somebody who was not there."""

    HYPOTHESIS = "hypothesis"
    EXPECTATION = "expectation"
    PARENT = "parent"
    TIME = "time"
    SCORE = "score"
    SPREAD = "spread"
    SEEDS = "seeds"
    CODE = "code"
    LOG = "log"
    CONTEXT = "context"
    COST = "cost"
    INSTRUMENT = "instrument"
    SIGNATURE = "signature"


EVIDENCE_RULES: dict[Evidence, str] = {
    Evidence.HYPOTHESIS: "what the edit was meant to do, in words",
    Evidence.EXPECTATION: "how much it was expected to change the metric, said before",
    Evidence.PARENT: "which trial it started from",
    Evidence.TIME: "when it was recorded",
    Evidence.SCORE: "the metric, or a label that says why there is none",
    Evidence.SPREAD: "how far the metric scatters between repetitions",
    Evidence.SEEDS: "the value of each repetition",
    Evidence.CODE: "the code that ran, or the diff that makes it",
    Evidence.LOG: "what the run printed",
    Evidence.CONTEXT: "what the agent was shown before it proposed",
    Evidence.COST: "seconds or money that it took",
    Evidence.INSTRUMENT: "which evaluator, data and environment gave the number",
    Evidence.SIGNATURE: "a signature of whoever measured",
}


class FailureLabel(StrEnum):
    """Why a trial has no score that counts."""

    SYNTAX_ERROR = "syntax_error"
    FORBIDDEN_EDIT = "forbidden_edit"
    SIZE_OVER_LIMIT = "size_over_limit"
    DUPLICATE_RECIPE = "duplicate_recipe"
    EMPTY_DIFF = "empty_diff"
    CRASH = "crash"
    OUT_OF_MEMORY = "out_of_memory"
    TRAIN_OVER_BUDGET = "train_over_budget"
    EVAL_OVER_BUDGET = "eval_over_budget"
    NO_ARTIFACT = "no_artifact"
    NO_METRIC = "no_metric"
    NONFINITE_METRIC = "nonfinite_metric"
    BELOW_GATE = "below_gate"
    CAUSALITY_VIOLATION = "causality_violation"
    EVALUATOR_TAMPERING = "evaluator_tampering"
    FORGED_METRIC = "forged_metric"
    INFRA_ERROR = "infra_error"


@dataclass(frozen=True)
class LabelRule:
    """One row of the label table: when it is found, and what exactly makes it true."""

    phase: str
    rule: str


LABEL_RULES: dict[FailureLabel, LabelRule] = {
    FailureLabel.SYNTAX_ERROR: LabelRule("before a run", "a recipe file does not parse as Python"),
    FailureLabel.FORBIDDEN_EDIT: LabelRule(
        "before a run", "a file outside the specialist's surface changed, or a forbidden import or call appears"
    ),
    FailureLabel.SIZE_OVER_LIMIT: LabelRule(
        "before a run or after it", "recipe source or saved artifact is larger than the task allows"
    ),
    FailureLabel.DUPLICATE_RECIPE: LabelRule(
        "before a run", "the same program, up to comments and formatting, was already tried in this campaign"
    ),
    FailureLabel.EMPTY_DIFF: LabelRule("before a run", "the recipe equals its parent byte for byte"),
    FailureLabel.CRASH: LabelRule("in a run", "the recipe's process ended with a non-zero exit code or a signal"),
    FailureLabel.OUT_OF_MEMORY: LabelRule("in a run", "the process tree passed the memory budget and was killed"),
    FailureLabel.TRAIN_OVER_BUDGET: LabelRule("in a run", "training passed its wall-clock budget and was killed"),
    FailureLabel.EVAL_OVER_BUDGET: LabelRule("in a run", "prediction passed its wall-clock budget and was killed"),
    FailureLabel.NO_ARTIFACT: LabelRule("in a run", "training ended well and left nothing in the output folder"),
    FailureLabel.NO_METRIC: LabelRule("in a run", "predictions are missing or have the wrong shape or type"),
    FailureLabel.NONFINITE_METRIC: LabelRule("in a run", "a prediction or the metric is NaN or infinite"),
    FailureLabel.BELOW_GATE: LabelRule("after a run", "a gate of the task does not hold for the mean over seeds"),
    FailureLabel.CAUSALITY_VIOLATION: LabelRule(
        "after a run", "changing later tokens changed the probability of earlier ones"
    ),
    FailureLabel.EVALUATOR_TAMPERING: LabelRule("after a run", "training or hidden data changed while the recipe ran"),
    FailureLabel.FORGED_METRIC: LabelRule("after a run", "a score does not carry the evaluator's signature"),
    FailureLabel.INFRA_ERROR: LabelRule(
        "not the recipe's fault", "runner or machine failed; retried, and no evidence against the idea"
    ),
}
