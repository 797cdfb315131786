"""The runner protocol: what is to be run, what was seen, and the one method that every backend pays for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from evaluators.task import Contract
from ledger.events import ProcessFacts
from ledger.recipes import Recipe


class InfrastructureError(Exception):
    """The world failed, not the recipe: the run says nothing about the idea and may be tried again."""


@dataclass(frozen=True)
class RunSpec:
    """One execution of a recipe: train with one seed, then answer every challenge in a process of its own."""

    recipe: Recipe
    contract: Contract
    seed: int
    data: Path
    """Folder of public training data, absolute; handed to training as it is."""
    challenges: tuple[bytes, ...]
    """Contents of .npy files. None is on disk while training runs, nor while another challenge is answered."""


@dataclass(frozen=True)
class RunResult:
    """What the runner saw; no opinion about it."""

    train: ProcessFacts
    predict: tuple[ProcessFacts, ...]
    """One for each challenge that was tried. The first prediction that gives no answer is the last one tried."""
    artifact: Mapping[str, str] | None
    """{path: sha256} of what training left; none where it failed, left nothing, or left more than plain files."""
    artifact_bytes: int | None
    """Sum of the sizes of the artifact's files."""
    answers: tuple[Path, ...]
    """Plain .npy files below `into`, in the order of the challenges; as many as were answered with exit code 0."""
    log: bytes
    """Standard output and error of all processes under a headline each, at most `log_bytes` of the budgets."""
    load_1m: float
    """The machine's one-minute load average when the run began."""
    host: str
    """Name of the machine that the recipe ran on."""
    gpus: tuple[str, ...]
    """Models of the GPUs that it could see."""
    threads: int
    """Threads that numeric libraries were told to use."""


class Runner(Protocol):
    """Executes recipes, one run at a time; for parallel runs a caller holds several."""

    name: str
    isolation: str
    """The tier of the sandbox, as its module describes it."""

    def run(self, spec: RunSpec, into: Path) -> RunResult:
        """Run `spec` below `into`, an empty folder that the caller owns and removes with `workspace.remove`.

        A recipe's failure is in the facts. Raises InfrastructureError for every other, and passes on
        KeyboardInterrupt; in all cases no process of the recipe is left.
        """
        ...

    def close(self) -> None:
        """Release what the runner holds; may be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
