"""The Task contract: task.toml, validated, frozen, hashed."""

import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from ledger.events import Part
from ledger.recipes import Recipe, digest_of, manifest
from ledger.vocabulary import Domain, FailureLabel

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
FilePath = Annotated[str, StringConstraints(pattern=r"^[^/\\\n][^\\\n]*$")]


class TaskError(Exception):
    """A task cannot be used; the message names the file, the key, what was expected and found."""


class Violation(ValueError):
    """Predictions break the task's contract; carries the failure label they earn."""

    def __init__(self, label: str, detail: str) -> None:
        super().__init__(detail)
        self.label = FailureLabel(label)
        self.detail = detail


class RecipeContract(Part):
    """Which files a specialist may edit, and the two programs that the runner calls."""

    dir: str
    files: tuple[FilePath, ...] = Field(min_length=1)
    train: tuple[str, ...] = Field(min_length=1)
    """Command line; `{data}`, `{out}` and `{seed}` stand for the data folder, output folder and seed."""
    predict: tuple[str, ...] = Field(min_length=1)
    """Command line; `{model}`, `{input}` and `{output}` stand for the artifact, the challenge and the answer."""
    preload: tuple[str, ...] = ()
    """Modules imported before the clock starts."""
    max_bytes: int = Field(gt=0)
    """Largest recipe source, all files together."""


class Metric(Part):
    """What is optimised."""

    name: str
    unit: str
    direction: Literal["minimize", "maximize"]

    @property
    def suffix(self) -> str:
        """The unit as it follows a number; nothing where the metric has none (unit `1`, as in UCUM)."""
        return "" if self.unit == "1" else f" {self.unit}"

    def gain(self, new: float, old: float) -> float:
        """Improvement of `new` over `old` in the metric's unit; positive is better."""
        return old - new if self.direction == "minimize" else new - old


class Gate(Part):
    """A bound that the mean over seeds of one metric must keep."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    label: FailureLabel

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expected exactly one of at_least and at_most")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)

    def __str__(self) -> str:
        bound, sign = (self.at_most, "<=") if self.at_least is None else (self.at_least, ">=")
        return f"{self.metric} {sign} {bound:,.10g}"


class Budgets(Part):
    """Hard limits of one run; the runner kills what passes them."""

    train_s: float = Field(gt=0)
    """Wall-clock seconds of training."""
    predict_s: float = Field(gt=0)
    """Wall-clock seconds of each prediction process."""
    memory_bytes: int = Field(gt=0)
    log_bytes: int = Field(gt=0)
    written_bytes: int = Field(default=2_000_000_000, gt=0)
    """Bytes that one process tree may write to storage, deleted files included."""
    processes: int = Field(gt=0)
    threads: int = Field(gt=0)
    gpus: int = Field(default=0, ge=0)
    """GPUs that a run needs; without one no device of them is visible to it."""


class Seeds(Part):
    """How many seeds are run."""

    baseline: int = Field(ge=2)
    trial: int = Field(ge=1)
    screen: int | None = Field(default=None, ge=1)
    """A trial that is clearly worse than the champion after so many runs gets no more; none to run every seed."""
    confirm: int = Field(default=0, ge=0)
    """A promising trial must win so many more runs, in turn with the champion on equal seeds; 0 for no such round."""


class Noise(Part):
    """The rule by which an improvement is told from noise."""

    confidence: float = Field(gt=0.5, lt=1)
    """A trial is kept where the one-sided p-value is below 1 - confidence."""
    promising: float = Field(default=0.1, gt=0, lt=1)
    """The round of confirmation begins where the first runs have a one-sided p-value below this."""
    hopeless: float = Field(default=0.05, gt=0, lt=0.5)
    """A trial is clearly worse where the one-sided p-value of its loss is below this."""


class EvaluatorContract(Part):
    """The task's measuring code, and every other file that it depends on."""

    module: FilePath
    sources: tuple[FilePath, ...] = ()


class Legality(Part):
    """Constructs that a recipe may not contain."""

    forbidden_imports: tuple[str, ...] = ()
    forbidden_calls: tuple[str, ...] = ()


class Specialist(Part):
    """An agent's share of the recipe surface."""

    name: Name
    domain: Domain
    charter: str
    files: tuple[FilePath, ...] = Field(min_length=1)


class Contract(Part):
    """Everything in task.toml. Equal contracts have equal digests; the folder they lie in does not count."""

    name: Name
    title: str
    description: str = ""
    recipe: RecipeContract
    metric: Metric
    gates: tuple[Gate, ...] = ()
    budgets: Budgets
    isolation: Literal["process", "namespaces"] | None = None
    """The weakest tier of `runners.sandbox` that the task may be run in; none where any will do."""
    seeds: Seeds
    noise: Noise
    evaluator: EvaluatorContract
    legality: Legality = Legality()
    specialists: tuple[Specialist, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Contract":
        known = set(self.recipe.files)
        if len(known) != len(self.recipe.files):
            raise ValueError("recipe.files names a file twice")
        for specialist in self.specialists:
            if unknown := sorted(set(specialist.files) - known):
                raise ValueError(f"specialist {specialist.name} may edit {unknown[0]!r}, which is not in recipe.files")
        if self.seeds.confirm == 1:
            raise ValueError("seeds.confirm is 1; a mean needs at least 2 runs, 0 is for no round of confirmation")
        if self.seeds.screen is not None and self.seeds.screen >= self.seeds.trial:
            raise ValueError(
                f"seeds.screen is {self.seeds.screen}; expected fewer than the {self.seeds.trial} of a trial"
            )
        names = [specialist.name for specialist in self.specialists]
        if len(set(names)) != len(names):
            raise ValueError("two specialists have the same name")
        return self

    @property
    def blob(self) -> bytes:
        """The contract as JSON: what a campaign stores, and what the digest is taken over."""
        return self.model_dump_json().encode()

    @property
    def digest(self) -> str:
        """Digest of the contract."""
        return digest_of(self.blob)

    def specialist(self, name: str) -> Specialist:
        """Raises KeyError for a name that is not in the roster."""
        return {specialist.name: specialist for specialist in self.specialists}[name]


class Task:
    """A contract in its folder: with the starting recipe and the measuring code."""

    def __init__(self, folder: Path, contract: Contract) -> None:
        self.folder = folder
        self.contract = contract

    @classmethod
    def load(cls, folder: Path) -> "Task":
        """Read and check `folder`/task.toml. Raises TaskError in one line for whatever is wrong."""
        path = folder / "task.toml"
        try:
            raw = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise TaskError(f"{path}: no such file; a task is a folder with a task.toml") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TaskError(f"{path}: expected TOML: {error}") from error
        try:
            # TOML has arrays where the contract has tuples: strict JSON mode takes those and nothing looser.
            contract = Contract.model_validate_json(json.dumps(raw, default=str))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            found = "" if first["type"] in ("missing", "value_error") else f", found {str(first['input'])[:80]!r}"
            raise TaskError(f"{path}: {place}: {first['msg']}{found}") from error
        task = cls(folder, contract)
        for name in (contract.evaluator.module, *contract.evaluator.sources):
            if not (folder / name).is_file():
                raise TaskError(f"{folder / name}: no such file, but task.toml names it under [evaluator]")
        task.recipe()
        return task

    def recipe(self) -> Recipe:
        """The starting recipe."""
        folder = self.folder / self.contract.recipe.dir
        try:
            return Recipe.read(folder, self.contract.recipe.files)
        except FileNotFoundError as error:
            raise TaskError(f"{error.filename}: no such file, but task.toml names it in recipe.files") from error
        except (OSError, ValueError) as error:
            raise TaskError(f"{folder}: {error}") from error

    def evaluator_digest(self) -> str:
        """Digest over the task's measuring code and the code of this program that measures and signs."""
        own = resources.files("evaluators")
        files = {
            f"evaluators/{name}": own.joinpath(name).read_bytes()
            for name in ("measure.py", "signing.py", "task.py", "verdict.py")
        }
        for name in (self.contract.evaluator.module, *self.contract.evaluator.sources):
            files[f"task/{name}"] = (self.folder / name).read_bytes()
        return digest_of(manifest(files))


def builtin_tasks() -> Iterable[Task]:
    """The tasks that come with labtrail, by name."""
    root = Path(str(resources.files("evaluators").joinpath("tasks")))
    return [Task.load(path.parent) for path in sorted(root.glob("*/task.toml"))]


def find_task(name: str) -> Task:
    """A built-in task by name, or a task folder by path. Raises TaskError with the names there are."""
    root = Path(str(resources.files("evaluators").joinpath("tasks")))
    if (root / name / "task.toml").is_file():
        return Task.load(root / name)
    if Path(name).is_dir():
        return Task.load(Path(name))
    known = ", ".join(task.contract.name for task in builtin_tasks())
    raise TaskError(f"expected a task or a task folder, found {name!r}; there are {known}")
