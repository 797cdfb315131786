"""The offline specialist: what it proposes from made-up lineages, and that it never repeats itself."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.edits import Operator
from agents.lineage import Lineage, PastTrial
from agents.proposal import Brief, Proposal, Proposer
from agents.search import Search, choose_specialist, signed
from evaluators.gates import check
from evaluators.task import Contract, Metric, RecipeContract, Specialist
from ledger.recipes import Recipe
from ledger.vocabulary import Domain, FailureLabel, Verdict
from tests.campaigns import CONTRACT as TOY
from tests.test_edits import IMAGES

FILES = tuple(sorted(IMAGES.files))
ROSTER = tuple(
    Specialist(name=domain, domain=domain, charter="Improve it.", files=FILES)
    for domain in (Domain.ARCH, Domain.OPT, Domain.SCHED, Domain.REG)
)
LOSS = TOY.model_copy(
    update={
        "recipe": RecipeContract(dir="recipe", files=FILES, train=("python",), predict=("python",), max_bytes=50_000),
        "metric": Metric(name="val_loss", unit="nat", direction="minimize"),
        "specialists": ROSTER,
    }
)
SECONDS = LOSS.model_copy(update={"metric": Metric(name="train_s", unit="s", direction="minimize")})
START = PastTrial(
    trial=0,
    specialist=None,
    domain=None,
    parent=None,
    operator=None,
    hypothesis=None,
    expected_delta=None,
    verdict=Verdict.BASELINE,
    label=None,
    detail=None,
    mean=2.0,
    std=0.01,
    n=3,
    gain=None,
    p_value=None,
    program=IMAGES.program,
    seconds=1.0,
)
KEPT: dict[str, object] = {"verdict": Verdict.KEPT, "gain": 0.1, "p_value": 0.001}
PROMISING: dict[str, object] = {"verdict": Verdict.DISCARDED, "gain": 0.02, "p_value": 0.2}
WORSE: dict[str, object] = {"verdict": Verdict.DISCARDED, "gain": -0.1, "p_value": 0.99}
CRASHED: dict[str, object] = {"verdict": Verdict.FAILED, "label": FailureLabel.CRASH, "mean": None}
MISSED: dict[str, object] = {"verdict": Verdict.DISQUALIFIED, "label": FailureLabel.BELOW_GATE}
ABANDONED: dict[str, object] = {"verdict": None, "mean": None}


class Notebook:
    """A campaign without runs: proposals are judged by whoever writes the test."""

    def __init__(self, contract: Contract = LOSS) -> None:
        self.contract = contract
        self.trials = [START]
        self.recipes = {0: IMAGES}

    @property
    def lineage(self) -> Lineage:
        champion = max(trial.trial for trial in self.trials if trial.verdict in (Verdict.BASELINE, Verdict.KEPT))
        metric = self.contract.metric
        return Lineage(
            "test", len(self.trials), metric.name, metric.unit, metric.direction, champion, tuple(self.trials)
        )

    def propose(self, specialist: str, seed: int = 0) -> Proposal | None:
        brief = Brief(self.contract, self.contract.specialist(specialist), self.lineage, self.recipes.__getitem__, seed)
        return Search().propose(brief)

    def record(self, specialist: str, proposal: Proposal, outcome: dict[str, object]) -> None:
        number = len(self.trials)
        self.recipes[number] = proposal.recipe
        past = replace(
            START,
            trial=number,
            specialist=specialist,
            domain=self.contract.specialist(specialist).domain,
            parent=proposal.parent,
            operator=proposal.operator,
            hypothesis=proposal.hypothesis,
            expected_delta=proposal.expected_delta,
            program=proposal.recipe.program,
        )
        self.trials.append(replace(past, **outcome))  # type: ignore[arg-type]

    def tried(self, specialist: str, operator: str, outcome: dict[str, object], recipe: Recipe = IMAGES) -> None:
        """Put a trial down that nobody proposed; its program is its own."""
        changed = Recipe({**recipe.files, "predict.py": f"{recipe.files['predict.py']}\nTRIAL = {len(self.trials)}\n"})
        self.record(specialist, Proposal(0, changed, "made up", "made up", None, operator), outcome)


def drawn(notebook: Notebook, specialist: str, count: int = 200) -> list[Operator]:
    """Operators of single-edit proposals over many seeds."""
    found: list[Operator] = []
    for seed in range(count):
        proposal = notebook.propose(specialist, seed)
        assert proposal is not None
        assert proposal.operator is not None
        found += Operator.parse(proposal.operator)
    return found


def share(operators: list[Operator], holds: Callable[[Operator], bool]) -> float:
    return sum(1 for operator in operators if holds(operator)) / len(operators)


def test_search_is_a_proposer() -> None:
    proposer: Proposer = Search()
    assert proposer.name == "search"


def test_the_same_brief_gives_the_same_proposal() -> None:
    notebook = Notebook()
    notebook.tried("opt", "scale_constant train.py:PEAK_LR x1.4", WORSE)
    assert notebook.propose("opt", 7) == notebook.propose("opt", 7)
    assert len({str(notebook.propose("opt", seed)) for seed in range(20)}) > 5


def test_a_proposal_says_what_changes_why_and_by_how_much() -> None:
    proposal = Notebook().propose("opt", 1)
    assert proposal is not None
    assert " should " in proposal.hypothesis
    assert "expected val_loss -" in proposal.hypothesis
    assert "untried in opt" in proposal.rationale
    assert proposal.expected_delta is not None
    assert proposal.expected_delta < 0


def test_the_expected_change_is_signed_as_the_metric_is() -> None:
    assert signed(LOSS.metric, 0.1) == -0.1
    assert signed(Metric(name="accuracy", unit="1", direction="maximize"), 0.1) == 0.1


def test_the_expected_change_is_what_the_family_brought_before() -> None:
    notebook = Notebook()
    for family in ("scale_constant", "shift_constant", "swap_optimizer", "toggle_flag", "clip_gradient"):
        notebook.tried("opt", f"{family} train.py:somewhere x1.4", PROMISING)
    deltas = {
        proposal.expected_delta
        for seed in range(40)
        if (proposal := notebook.propose("opt", seed)) is not None
        and proposal.parent == 0
        and (proposal.operator or "").startswith("scale_constant")
    }
    assert deltas == {-0.02}


@pytest.mark.parametrize("contract", [LOSS, SECONDS], ids=["loss", "seconds"])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=3, deadline=None)
def test_sixty_proposals_are_legal_and_never_repeat_a_program(contract: Contract, seed: int) -> None:
    notebook, draw = Notebook(contract), random.Random(seed)
    exhausted: set[str] = set()
    for turn in range(60):
        specialist = choose_specialist(contract, notebook.lineage, seed + turn, frozenset(exhausted))
        if specialist is None:
            break
        proposal = notebook.propose(specialist.name, seed + turn)
        if proposal is None:
            exhausted.add(specialist.name)
            continue
        # An abandoned trial says nothing of its program: it may come again.
        known = {trial.program: trial.trial for trial in notebook.trials if trial.program and trial.verdict}
        assert check(contract, specialist, notebook.recipes[proposal.parent], proposal.recipe, known) is None
        outcome = draw.choice([KEPT, PROMISING, WORSE, WORSE, CRASHED, MISSED, ABANDONED])
        notebook.record(specialist.name, proposal, outcome)
    assert len(notebook.trials) > 30


def test_a_domain_without_edits_has_nothing_to_propose() -> None:
    contract = LOSS.model_copy(
        update={"specialists": (Specialist(name="quant", domain=Domain.QUANT, charter="-", files=("model.py",)),)}
    )
    assert Notebook(contract).propose("quant") is None


def test_a_recipe_that_does_not_parse_raises_nothing() -> None:
    notebook = Notebook()
    notebook.recipes[0] = Recipe(dict.fromkeys(FILES, "def (:\n"))
    assert notebook.propose("opt") is None


def test_single_edits_run_out_and_pairs_follow() -> None:
    contract = LOSS.model_copy(
        update={"specialists": (Specialist(name="reg", domain=Domain.REG, charter="-", files=("train.py",)),)}
    )
    notebook = Notebook(contract)
    operators: list[str] = []
    while (proposal := notebook.propose("reg", len(operators))) is not None and len(operators) < 60:
        assert proposal.operator is not None
        operators.append(proposal.operator)
        notebook.record("reg", proposal, {**WORSE, "p_value": 0.5})
    singles = [" + " not in operator for operator in operators]
    assert all(singles[:8])
    assert not all(singles)
    assert len(operators) < 60


def test_after_a_worse_step_up_the_way_down_is_likelier() -> None:
    up = "scale_constant train.py:PEAK_LR x1.4"
    notebook = Notebook()
    notebook.tried("opt", up, WORSE)
    there = [operator for operator in drawn(notebook, "opt") if operator.site == "train.py:PEAK_LR"]
    assert share(there, lambda operator: operator.direction < 0) > 0.8
    assert up not in map(str, there)


def test_after_a_kept_step_the_search_goes_further() -> None:
    notebook = Notebook()
    raised = Recipe({**IMAGES.files, "train.py": IMAGES.files["train.py"].replace("PEAK_LR = 0.4", "PEAK_LR = 0.56")})
    notebook.tried("opt", "scale_constant train.py:PEAK_LR x1.4", KEPT, raised)
    operators = drawn(notebook, "opt")
    there = [operator for operator in operators if operator.site == "train.py:PEAK_LR"]
    assert share(there, lambda operator: operator.direction > 0) > 0.8
    assert len(there) > len([operator for operator in drawn(Notebook(), "opt") if operator.site == "train.py:PEAK_LR"])


def test_after_a_step_too_far_a_smaller_one_is_likelier_than_a_larger() -> None:
    notebook = Notebook()
    raised = Recipe({**IMAGES.files, "train.py": IMAGES.files["train.py"].replace("PEAK_LR = 0.4", "PEAK_LR = 0.56")})
    notebook.tried("opt", "scale_constant train.py:PEAK_LR x1.4", KEPT, raised)
    notebook.tried("opt", "scale_constant train.py:PEAK_LR x1.4", WORSE, raised)
    ups = [
        operator
        for operator in drawn(notebook, "opt")
        if operator.site == "train.py:PEAK_LR" and operator.direction > 0
    ]
    assert share(ups, lambda operator: operator.move == "x1.2") > 0.8


def test_a_crash_keeps_the_search_away_from_the_place() -> None:
    notebook = Notebook()
    before = share(drawn(notebook, "opt"), lambda operator: operator.family == "swap_optimizer")
    for target in ("AdamW", "RMSprop"):
        notebook.tried("opt", f"swap_optimizer train.py:train.optimizer {target}", CRASHED)
    after = share(drawn(notebook, "opt"), lambda operator: operator.family == "swap_optimizer")
    assert after < before / 2


def test_a_failure_of_the_machine_is_no_evidence() -> None:
    notebook = Notebook()
    notebook.tried(
        "opt", "scale_constant train.py:PEAK_LR x1.4", {"verdict": Verdict.FAILED, "label": FailureLabel.INFRA_ERROR}
    )
    there = [operator for operator in drawn(notebook, "opt") if operator.site == "train.py:PEAK_LR"]
    assert 0.2 < share(there, lambda operator: operator.direction > 0) < 0.8


def test_an_artifact_over_the_limit_stops_enlarging() -> None:
    def enlarges(operator: Operator) -> bool:
        return "WIDTHS" in operator.site and operator.direction > 0

    notebook = Notebook()
    before = share(drawn(notebook, "arch"), enlarges)
    for move in ("+1", "+2"):
        outcome: dict[str, object] = {"verdict": Verdict.DISQUALIFIED, "label": FailureLabel.SIZE_OVER_LIMIT}
        notebook.tried("arch", f"shift_constant model.py:elsewhere {move}", outcome)
    assert share(drawn(notebook, "arch"), enlarges) < before / 2


def test_training_over_budget_stops_longer_training() -> None:
    def lengthens(operator: Operator) -> bool:
        return "EPOCHS" in operator.site and operator.direction > 0

    notebook = Notebook()
    before = share(drawn(notebook, "sched"), lengthens)
    outcome: dict[str, object] = {"verdict": Verdict.FAILED, "label": FailureLabel.TRAIN_OVER_BUDGET, "mean": None}
    notebook.tried("arch", "shift_constant model.py:elsewhere +1", outcome)
    notebook.tried("arch", "shift_constant model.py:elsewhere +2", outcome)
    assert before > 0
    assert share(drawn(notebook, "sched"), lengthens) < before / 2


def test_where_the_metric_is_time_cheaper_programs_come_first() -> None:
    def shortens(operator: Operator) -> bool:
        return "EPOCHS" in operator.site and operator.direction < 0

    assert share(drawn(Notebook(SECONDS), "sched"), shortens) > 1.5 * share(drawn(Notebook(), "sched"), shortens)


def test_a_gate_missed_by_a_shorter_training_asks_for_a_gentler_cut() -> None:
    notebook = Notebook(SECONDS)
    notebook.tried("sched", "scale_constant train.py:EPOCHS x0.75", MISSED)
    cuts = [operator for operator in drawn(notebook, "sched") if "EPOCHS" in operator.site and operator.direction < 0]
    assert share(cuts, lambda operator: float(operator.move[1:]) > 0.75) > 0.9


def test_where_the_metric_is_time_quality_is_paired_with_a_cut_of_the_same_domain() -> None:
    def pairs(specialist: str) -> list[Proposal]:
        proposals = [Notebook(SECONDS).propose(specialist, seed) for seed in range(30)]
        return [proposal for proposal in proposals if proposal is not None and " + " in (proposal.operator or "")]

    assert len(pairs("sched")) >= 3
    assert all("saves time" in proposal.rationale for proposal in pairs("sched"))
    assert pairs("reg") == []


def test_a_promising_edit_is_tried_again_on_a_new_champion() -> None:
    notebook = Notebook()
    before = share(drawn(notebook, "opt"), lambda operator: operator.family == "centralise_gradient")
    notebook.tried("opt", "centralise_gradient train.py:train.step on", PROMISING)
    notebook.tried("reg", "toggle_flag model.py:elsewhere on", KEPT)
    after = share(drawn(notebook, "opt"), lambda operator: operator.family == "centralise_gradient")
    assert after > before


def test_two_promising_edits_are_combined() -> None:
    notebook = Notebook()
    first, second = "scale_constant train.py:PEAK_LR x1.4", "centralise_gradient train.py:train.step on"
    notebook.tried("opt", first, PROMISING)
    notebook.tried("opt", second, PROMISING)
    operators = {proposal.operator for seed in range(60) if (proposal := notebook.propose("opt", seed)) is not None}
    assert f"{first} + {second}" in operators


def test_a_promising_trial_is_sometimes_the_parent() -> None:
    notebook = Notebook()
    notebook.tried("opt", "scale_constant train.py:PEAK_LR x1.4", PROMISING)
    parents = [proposal.parent for seed in range(60) if (proposal := notebook.propose("opt", seed)) is not None]
    assert 0 < parents.count(1) < parents.count(0)


def test_everyone_proposes_once_before_anyone_does_twice() -> None:
    notebook, order = Notebook(), []
    for seed in range(len(ROSTER)):
        specialist = choose_specialist(LOSS, notebook.lineage, seed, frozenset())
        assert specialist is not None
        order.append(specialist.name)
        notebook.tried(specialist.name, f"toggle_flag model.py:nowhere{seed} on", WORSE)
    assert order == [specialist.name for specialist in ROSTER]


def test_yield_is_rewarded_and_neglect_is_repaired() -> None:
    notebook, turns = Notebook(), []
    for seed in range(80):
        specialist = choose_specialist(LOSS, notebook.lineage, seed, frozenset())
        assert specialist is not None
        turns.append(specialist.name)
        outcome = KEPT if specialist.name == "opt" and seed % 2 else WORSE
        notebook.tried(specialist.name, f"toggle_flag model.py:nowhere{seed} on", outcome)
    assert max(set(turns), key=turns.count) == "opt"
    assert min(turns.count(specialist.name) for specialist in ROSTER) >= 3


def test_exhausted_specialists_are_passed_over() -> None:
    lineage = Notebook().lineage
    chosen = choose_specialist(LOSS, lineage, 0, frozenset({"arch", "opt"}))
    assert chosen is not None
    assert chosen.name == "sched"
    assert choose_specialist(LOSS, lineage, 0, frozenset(specialist.name for specialist in ROSTER)) is None
