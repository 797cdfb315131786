"""A campaign as an auditor follows it: the fold of its events, its contract, and every recipe rebuilt from diffs."""

import sys
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ValidationError

from audit.file import BlobError, LedgerFile, WithheldBlob
from audit.report import Check
from evaluators.task import Contract
from ledger.campaign import Campaign, Trial
from ledger.checkpoint import Checkpoint
from ledger.events import CampaignResumed, CampaignStarted, DiffSubmitted, Epoch, Event, TrialAbandoned
from ledger.keys import KeyFault, VerifierKey
from ledger.recipes import PatchError, Recipe, apply

RECIPES_KEPT = 512
"""Recipes held as text; older parents are read from their blobs again."""


@dataclass(frozen=True)
class Case:
    """What is audited, and what the auditor knows from elsewhere."""

    file: LedgerFile
    evaluator_key: VerifierKey | None = None
    """The key that scores must be signed with; None to take the one that each campaign names."""
    checkpoint: Checkpoint | None = None
    """A tree head that was kept outside the ledger, its signature checked."""


@dataclass
class Trajectory:
    """What is known of one campaign before the event that is looked at."""

    state: Campaign
    contract: Contract | None = None
    key: VerifierKey | None = None
    """The evaluator's, as the campaign names it or as the auditor pinned it."""
    recipes: "Recipes" = field(default_factory=lambda: Recipes())
    broken_at: int | None = None
    """The first event that the grammar does not allow; what depends on the state is not judged behind it."""
    resumed_at: int = -1
    """The last campaign_resumed."""
    touched: dict[int, int] = field(default_factory=dict)
    """Trial -> its last event."""


@dataclass(frozen=True)
class Step:
    """One event and the trajectory before it; None where the event belongs to no campaign."""

    event: Event
    trajectory: Trajectory | None

    @property
    def place(self) -> str:
        """Where a finding about this event stands."""
        if self.event.trial is None:
            return f"event {self.event.seq}"
        return f"event {self.event.seq}, trial {self.event.trial} of {self.event.campaign}"

    @property
    def trial(self) -> Trial:
        """The event's trial before it."""
        number = self.event.trial or 0
        return Trial(number) if self.trajectory is None else self.trajectory.state.trials.get(number, Trial(number))


class Rule(ABC):
    """A check that looks at every event that decodes, with the state of its campaign before it."""

    name: ClassVar[str]
    proves: ClassVar[str]

    def __init__(self, case: Case, check: Check) -> None:
        self._case, self._file, self._check = case, case.file, check

    @abstractmethod
    def see(self, step: Step) -> None:
        """The next event in order of seq."""

    def end(self) -> None:  # noqa: B027  most rules are done with the last event
        """No event is left."""


class Recipes:
    """Recipes of a campaign's trials, as parent and diff make them; whatever the events claim about them."""

    def __init__(self) -> None:
        self.programs: dict[str, int] = {}
        """Program digest, calculated -> the first trial with it."""
        self.withheld: set[int] = set()
        """Trials whose recipe cannot be rebuilt because a blob is withheld from this copy."""
        self._digests: dict[int, str] = {}
        self._texts: OrderedDict[int, Recipe] = OrderedDict()

    def get(self, file: LedgerFile, trial: int) -> Recipe | None:
        """The recipe of a trial, or None where it could not be rebuilt."""
        if trial in self._texts:
            self._texts.move_to_end(trial)
            return self._texts[trial]
        if trial not in self._digests:
            return None
        try:
            return self._keep(trial, Recipe.load(self._digests[trial], file.blob))
        except WithheldBlob:
            self.withheld.add(trial)
        except (BlobError, ValueError, AttributeError, TypeError):
            pass
        return None

    def add(self, trial: int, recipe: Recipe) -> None:
        """A trial's recipe came out."""
        self._digests[trial] = recipe.digest
        self.programs.setdefault(program_of(recipe), trial)
        self._keep(trial, recipe)

    def forget_program(self, trial: int) -> None:
        """The trial was abandoned: its program may be proposed again."""
        self.programs = {program: first for program, first in self.programs.items() if first != trial}

    def _keep(self, trial: int, recipe: Recipe) -> Recipe:
        self._texts[trial] = recipe
        if len(self._texts) > RECIPES_KEPT:
            self._texts.popitem(last=False)
        return recipe


def program_of(recipe: Recipe) -> str:
    """Digest of the program; of the text where a file does not parse."""
    try:
        return recipe.program
    except (SyntaxError, ValueError, RecursionError):
        return recipe.digest


class Reconstruction(Rule):
    """Every recipe is what its parent and its diff make of it."""

    name: ClassVar[str] = "recipes"
    proves: ClassVar[str] = "every recipe comes out of its parent and its diff as recorded, and so does its program"

    def see(self, step: Step) -> None:
        if step.trajectory is None:
            return
        match step.event.body:
            case CampaignStarted() as body:
                self._start(step, step.trajectory, body)
            case TrialAbandoned():
                step.trajectory.recipes.forget_program(step.event.trial or 0)
            case DiffSubmitted() as body:
                self._check.checked += 1
                errors = self._check.errors
                self._rebuild(step, step.trajectory, body)
                withheld = (step.event.trial or 0) in step.trajectory.recipes.withheld
                self._check.confirmed += errors == self._check.errors and not withheld

    def _start(self, step: Step, trajectory: Trajectory, body: CampaignStarted) -> None:
        self._check.checked += 1
        recipe = self._load(step, trajectory, body.recipe)
        if recipe is not None and self._check.compare(step.place, "starting recipe", recipe.digest, body.recipe):
            trajectory.recipes.add(0, recipe)
            self._check.confirmed += 1

    def _rebuild(self, step: Step, trajectory: Trajectory, body: DiffSubmitted) -> None:
        number = step.event.trial or 0
        parent = trajectory.recipes.get(self._file, body.parent)
        if parent is None and body.parent in trajectory.recipes.withheld:
            trajectory.recipes.withheld.add(number)
            self._check.missed("a recipe that comes out of a withheld one")
            return
        if parent is None:
            self._check.fault(step.place, f"parent {body.parent} has no recipe that could be rebuilt")
            return
        self._check.compare(step.place, f"recipe of parent {body.parent}", parent.digest, body.parent_recipe)
        try:
            recipe = apply(self._file.blob(body.diff).decode(), parent)
        except BlobError as error:
            trajectory.recipes.withheld |= {number} if isinstance(error, WithheldBlob) else set()
            self._check.unreadable(step.place, "the diff of a trial", error)
        except (PatchError, ValueError, IndexError) as error:
            self._check.fault(step.place, f"the diff does not apply to trial {body.parent}: {error}")
        else:
            trajectory.recipes.add(number, recipe)
            self._compare(step, body, parent, recipe)

    def _compare(self, step: Step, body: DiffSubmitted, parent: Recipe, recipe: Recipe) -> None:
        paths = parent.files.keys() | recipe.files.keys()
        changed = tuple(sorted(path for path in paths if parent.files.get(path) != recipe.files.get(path)))
        self._check.compare(step.place, "recipe", recipe.digest, body.recipe)
        self._compare_program(step, program_of(recipe), body.program)
        self._check.compare(step.place, "changed files", changed, body.files)

    def _compare_program(self, step: Step, calculated: str, said: str) -> None:
        """Digests of syntax trees compare under one version of Python; gates are decided again by our own anyway."""
        started = step.trajectory.state.started if step.trajectory else None
        theirs = started.environment.get("python", "") if started else ""
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        if calculated == said or theirs.startswith(f"{ours}."):
            self._check.compare(step.place, "program", calculated, said)
        else:
            self._check.missed(f"program digests: taken with Python {theirs or 'unknown'}, this is {ours}")

    def _load(self, step: Step, trajectory: Trajectory, digest: str) -> Recipe | None:
        try:
            return Recipe.load(digest, self._file.blob)
        except BlobError as error:
            trajectory.recipes.withheld |= {0} if isinstance(error, WithheldBlob) else set()
            self._check.unreadable(step.place, "the starting recipe", error)
        except (ValueError, AttributeError, TypeError) as error:
            self._check.fault(step.place, f"recipe {digest}: expected a manifest of text files: {error}")
        return None


class Contracts(Rule):
    """The contract that decides verdicts is in the ledger, and the campaign says of itself what the contract says."""

    name: ClassVar[str] = "contracts"
    proves: ClassVar[str] = (
        "the contract that decides every verdict is in the ledger, under the digest of the measurement epoch"
    )

    def see(self, step: Step) -> None:
        match step.trajectory, step.event.body:
            case Trajectory() as trajectory, CampaignStarted() as body:
                self._check.checked += 1
                trajectory.key = self._key(step, body)
                trajectory.contract = self._load(step, body.epoch.task)
                if trajectory.contract is not None:
                    self._compare(step, body, trajectory.contract, trajectory.recipes.get(self._file, 0))
            case Trajectory(state=Campaign(epoch=Epoch(task=known))) as trajectory, CampaignResumed() as resumed:
                if resumed.epoch.task != known:
                    self._check.checked += 1
                    trajectory.contract = self._load(step, resumed.epoch.task)

    def _compare(self, step: Step, body: CampaignStarted, contract: Contract, recipe: Recipe | None) -> None:
        names = tuple(specialist.name for specialist in contract.specialists)
        for what, calculated, said in (
            ("task", contract.name, body.task),
            ("metric", contract.metric.name, body.metric),
            ("unit", contract.metric.unit, body.unit),
            ("direction", contract.metric.direction, body.direction),
            ("specialists", names, body.specialists),
        ):
            self._check.compare(step.place, f"{what} of the contract", calculated, said)
        if recipe is not None:
            wanted, found = tuple(sorted(contract.recipe.files)), tuple(sorted(recipe.files))
            self._check.compare(step.place, "files of the contract", wanted, found, "the starting recipe")

    def _key(self, step: Step, body: CampaignStarted) -> VerifierKey | None:
        if self._case.evaluator_key is not None:
            if str(self._case.evaluator_key) != body.evaluator_key:
                said = f"the event says {body.evaluator_key}"
                self._check.fault(step.place, f"evaluator's key: pinned {self._case.evaluator_key}, {said}")
            return self._case.evaluator_key
        self._check.missed("whose key the evaluator's is: the ledger itself names it (pin one with --evaluator-key)")
        try:
            return VerifierKey.parse(body.evaluator_key)
        except KeyFault as error:
            self._check.fault(step.place, str(error))
            return None

    def _load(self, step: Step, digest: str) -> Contract | None:
        try:
            return Contract.model_validate_json(self._file.blob(digest))
        except BlobError as error:
            self._check.unreadable(step.place, "the contract", error)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the contract"
            self._check.fault(step.place, f"blob {digest}, the contract: {place}: {first['msg']}")
        return None
