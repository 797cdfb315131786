"""Facts of a run -> the failure label they show, by the rules of `ledger.vocabulary.LABEL_RULES`."""

from evaluators.task import Contract
from ledger.events import ProcessFacts, RunFinished
from ledger.vocabulary import FailureLabel


def label_of(contract: Contract, finished: RunFinished) -> tuple[FailureLabel, str] | None:
    """Label and detail where the facts alone show a failure; None where predictions are there to be measured."""
    budgets = contract.budgets
    if shown := _process_failure("training", finished.train, FailureLabel.TRAIN_OVER_BUDGET, budgets.train_s):
        return shown
    if finished.artifact is None:
        return FailureLabel.NO_ARTIFACT, "expected files in the output folder, found none that count"
    for facts in finished.predict:
        if shown := _process_failure("prediction", facts, FailureLabel.EVAL_OVER_BUDGET, budgets.predict_s):
            return shown
    return None


def _process_failure(
    name: str, facts: ProcessFacts, over_budget: FailureLabel, budget_s: float
) -> tuple[FailureLabel, str] | None:
    match facts.killed_for:
        case "wall" | "cpu":
            return over_budget, f"{name} was killed after {facts.wall_s:.1f} s, the budget is {budget_s:g} s"
        case "memory":
            return FailureLabel.OUT_OF_MEMORY, f"{name} was killed at {facts.max_rss_bytes / 1e6:,.0f} MB"
        case "log":
            return FailureLabel.CRASH, f"{name} was killed for printing more than its log budget"
        case "disk":
            return FailureLabel.CRASH, f"{name} was killed for writing more to storage than its budget"
        case "runner":
            return FailureLabel.CRASH, f"{name} took the runner's own process with it"
        case "processes":
            return FailureLabel.CRASH, f"{name} was killed for starting more processes than its budget"
        case "stopped":
            return FailureLabel.INFRA_ERROR, f"{name} was stopped from outside"
    if facts.signal is not None:
        return FailureLabel.CRASH, f"{name} ended by signal {facts.signal}"
    if facts.exit_code != 0:
        return FailureLabel.CRASH, f"{name} ended with exit code {facts.exit_code}"
    return None


def score_facts(finished: RunFinished, recipe_bytes: int) -> dict[str, float]:
    """The runner's facts as metrics: clocks in seconds, artifact with the recipe's source in bytes."""
    return {
        "train_cpu_s": finished.train.cpu_s,
        "train_wall_s": finished.train.wall_s,
        "predict_cpu_s": sum(facts.cpu_s for facts in finished.predict),
        "artifact_bytes": float((finished.artifact_bytes or 0) + recipe_bytes),
    }
