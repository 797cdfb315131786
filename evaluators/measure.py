"""The measuring process: holds hidden data and the evaluator's key, computes metrics from predictions, and signs."""

import base64
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import platform
import secrets
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, cast

import numpy as np

from evaluators.signing import sign
from evaluators.task import Task, TaskError, Violation
from evaluators.verdict import broken_gate, gate_means, summarise, values
from ledger.events import CertificationRecorded, Epoch, ScoreRecorded, decimal
from ledger.keys import SigningKey
from ledger.recipes import digest_of, manifest
from ledger.vocabulary import FailureLabel, Trust

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")
"""Libraries whose version can move a metric: part of the environment digest."""


VALIDATION, CERTIFICATION = "validation", "certification"
"""The splits of hidden data: what the search is measured on, and what its champion is measured on once."""
PATIENCE_S = 300.0
"""Longest wait for an answer of the measuring process; a recipe may have stopped it."""


class MeasurementError(Exception):
    """The measuring process failed: an infrastructure failure, never the recipe's."""


class MeasuringCode(Protocol):
    """What a task's measuring module defines."""

    def prepare(self, public: Path, hidden: Path) -> None:
        """Write training data to `public`, and to `hidden` one folder for each split, all of one layout."""
        ...

    def challenges(self, hidden: Path, nonce: int) -> list[np.ndarray]:
        """Inputs for fresh prediction processes, one each; `hidden` is the folder of one split."""
        ...

    def score(self, hidden: Path, nonce: int, outputs: list[np.ndarray]) -> dict[str, float]:
        """Metrics from the predictions. Raises Violation."""
        ...


@dataclass(frozen=True)
class RunClaim:
    """What the supervisor asks to be scored: identity of the run, and the runner's facts by metric name."""

    campaign: str
    trial: int
    run: int
    seed: int
    nonce: int
    recipe: str
    artifact: str
    facts: Mapping[str, float]
    answers: tuple[str, ...]
    """Paths of the prediction files (.npy)."""


def environment() -> dict[str, str]:
    """What else can move a metric: interpreter, libraries, processor."""
    found = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def environment_digest(facts: Mapping[str, str]) -> str:
    """Digest of the environment, as JSON with sorted keys."""
    return digest_of(json.dumps(dict(facts), sort_keys=True).encode())


class Evaluator:
    """One task's instrument: prepared data, measuring code, key."""

    def __init__(self, task: Task, public: Path, hidden: Path, key: SigningKey) -> None:
        self._task, self._hidden, self._key = task, hidden, key
        self._code = _load(task.folder / task.contract.evaluator.module)
        self._public = public
        self._prepare()
        self.epoch = Epoch(
            task=task.contract.digest,
            evaluator=task.evaluator_digest(),
            data=self._data_digest(),
            environment=environment_digest(environment()),
        )

    def challenges(self, split: str) -> tuple[int, list[bytes]]:
        """A fresh nonce and the challenges that it draws from a split, as .npy files."""
        if not self._is_intact():
            self._prepare()
        nonce = secrets.randbelow(2**53)
        return nonce, [_npy(array) for array in self._code.challenges(self._hidden / split, nonce)]

    def check_data(self) -> None:
        """Raises Violation where training or hidden data are no longer what was prepared, and writes them anew."""
        if not self._is_intact():
            self._prepare()
            raise Violation(FailureLabel.EVALUATOR_TAMPERING, "training or hidden data changed while the recipe ran")

    def score(self, claim: RunClaim) -> ScoreRecorded:
        """The signed score of one run. Raises Violation where the predictions earn a failure label."""
        unsigned = self._measured(claim, VALIDATION)
        return unsigned.model_copy(update={"signature": sign(self._key, claim.campaign, claim.trial, unsigned)})

    def certify(self, claims: Sequence[RunClaim], failure: FailureLabel | None) -> CertificationRecorded:
        """The signed certification of a trial by its runs, one a seed; `failure` is what the last run's facts show."""
        contract, first, scores = self._task.contract, claims[0], []
        try:
            if failure is None:
                scores = [self._measured(claim, CERTIFICATION) for claim in claims]
        except Violation as violation:
            failure, scores = violation.label, []
        means = gate_means(contract, scores) if scores else {}
        unsigned = CertificationRecorded(
            recipe=first.recipe,
            seeds=tuple(claim.seed for claim in claims),
            artifacts=tuple(claim.artifact for claim in claims if claim.artifact),
            values=tuple(score.metrics[contract.metric.name] for score in scores),
            score=summarise(values(contract, scores)) if scores else None,
            gates={name: decimal(mean) for name, mean in means.items()},
            legal=bool(scores) and broken_gate(contract, means) is None,
            label=failure,
            epoch=self.epoch,
            signature="",
        )
        return unsigned.model_copy(update={"signature": sign(self._key, first.campaign, first.trial, unsigned)})

    def _measured(self, claim: RunClaim, split: str) -> ScoreRecorded:
        outputs = [_answer(Path(path)) for path in claim.answers]
        metrics = {**self._code.score(self._hidden / split, claim.nonce, outputs), **claim.facts}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Violation(FailureLabel.NONFINITE_METRIC, f"metric {name} is {value}")
        return ScoreRecorded(
            run=claim.run,
            seed=claim.seed,
            metrics={name: decimal(value) for name, value in sorted(metrics.items())},
            trust=Trust.MEASURED,
            nonce=claim.nonce,
            recipe=claim.recipe,
            artifact=claim.artifact,
            epoch=self.epoch,
            signature="",
        )

    def _is_intact(self) -> bool:
        if self._public.is_symlink() or self._hidden.is_symlink():
            return False
        try:
            return self._data_digest() == self.epoch.data
        except (OSError, ValueError, RecursionError):
            # Names or depths that cannot even be read: none of ours.
            return False

    def _data_digest(self) -> str:
        """Digest over every file of both folders, by its place and name."""
        files = {
            f"{place}/{path.relative_to(folder).as_posix()}": path.read_bytes() if path.is_file() else b""
            for place, folder in (("public", self._public), ("hidden", self._hidden))
            for path in sorted(folder.rglob("*"))
        }
        return digest_of(manifest(files))

    def _prepare(self) -> None:
        """Both folders as the task's code fills them, whatever a recipe put in their place."""
        for folder in (self._public, self._hidden):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            else:
                folder.unlink(missing_ok=True)
            folder.mkdir(parents=True, mode=0o700)
        self._code.prepare(self._public, self._hidden)
        # A recipe may be another user: training data are for everybody who can enter the folder above.
        for path in (self._public, *self._public.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)


class MeasuringProcess:
    """The supervisor's end of a measuring process: JSON lines over pipes, nothing shared but files named in them."""

    def __init__(self, task: Task, public: Path, hidden: Path, key: Path, log: Path) -> None:
        self._arguments = [str(task.folder.absolute()), str(public), str(hidden), str(key)]
        self._log = log
        self.epoch = self._start()

    def _start(self) -> Epoch:
        # An allow list: the measuring process gets neither API keys nor the user's Python settings.
        allowed = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
        with self._log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "evaluators.measure", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**allowed, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return Epoch.model_validate_json(json.dumps(self._receive()["epoch"]))

    def restart(self) -> None:
        """Begin again with a fresh process: a recipe may have killed or stopped the last one.

        Raises MeasurementError where the new one is another instrument than the old one.
        """
        self.close()
        if self._start() != self.epoch:
            raise MeasurementError("the measuring process came back with other code, data or environment")

    def challenges(self, split: str = VALIDATION) -> tuple[int, tuple[bytes, ...]]:
        """Nonce and challenges of the next run. Raises MeasurementError."""
        answer = self._ask({"op": "challenges", "split": split})
        return answer["nonce"], tuple(base64.b64decode(part) for part in answer["challenges"])

    def score(self, claim: RunClaim) -> ScoreRecorded:
        """The signed score. Raises Violation for what the recipe did, MeasurementError for everything else."""
        answer = self._ask({"op": "score", "claim": _plain(claim)})
        return ScoreRecorded.model_validate_json(json.dumps(answer["score"]))

    def certify(self, claims: Sequence[RunClaim], failure: FailureLabel | None) -> CertificationRecorded:
        """The signed certification of one trial. Raises MeasurementError."""
        answer = self._ask({"op": "certify", "claims": [_plain(claim) for claim in claims], "failure": failure})
        return CertificationRecorded.model_validate_json(json.dumps(answer["certification"]))

    def check_data(self) -> None:
        """After each run. Raises Violation where the recipe changed data, MeasurementError for everything else."""
        self._ask({"op": "check_data"})

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # A request that never left is flushed into a pipe without a reader.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        pipe = cast(TextIO, self._process.stdin)
        try:
            pipe.write(json.dumps(request) + "\n")
            pipe.flush()
        except BrokenPipeError as error:
            raise self._died() from error
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        answers = cast(TextIO, self._process.stdout)
        if not select.select([answers], [], [], PATIENCE_S)[0]:
            raise MeasurementError(f"the measuring process said nothing for {PATIENCE_S:g} s")
        line = answers.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasurementError(answer["error"])
        if "violation" in answer:
            raise Violation(answer["violation"]["label"], answer["violation"]["detail"])
        return answer

    def _died(self) -> MeasurementError:
        code = self._process.wait()
        tail = self._log.read_text(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
        return MeasurementError(f"the measuring process ended with exit code {code}: {tail[0]}")


def serve(evaluator: Evaluator, requests: TextIO, answers: TextIO) -> None:
    """Answer requests until the pipe closes. A failure of the instrument is told, never guessed around."""
    _tell(answers, {"epoch": evaluator.epoch.model_dump()})
    for line in requests:
        request = json.loads(line)
        try:
            _tell(answers, _answered(evaluator, request))
        except Violation as violation:
            _tell(answers, {"violation": {"label": violation.label, "detail": violation.detail}})
        except Exception as error:  # the process boundary: the supervisor records it as an infrastructure failure
            _tell(answers, {"error": f"{type(error).__name__}: {error}"})


def _answered(evaluator: Evaluator, request: dict[str, Any]) -> dict[str, Any]:
    match request["op"]:
        case "challenges":
            nonce, arrays = evaluator.challenges(request["split"])
            return {"nonce": nonce, "challenges": [base64.b64encode(array).decode() for array in arrays]}
        case "check_data":
            evaluator.check_data()
            return {}
        case "score":
            return {"score": evaluator.score(_claim(request["claim"])).model_dump(mode="json")}
        case "certify":
            failure = None if request["failure"] is None else FailureLabel(request["failure"])
            certification = evaluator.certify([_claim(fields) for fields in request["claims"]], failure)
            return {"certification": certification.model_dump(mode="json")}
    raise ValueError(f"unknown request {request['op']!r}")


def _plain(claim: RunClaim) -> dict[str, object]:
    return {**claim.__dict__, "facts": dict(claim.facts)}


def _claim(fields: dict[str, Any]) -> RunClaim:
    return RunClaim(**{**fields, "answers": tuple(fields["answers"])})


def _answer(path: Path) -> np.ndarray:
    """A prediction file, mapped into memory. Raises Violation where it is not one plain .npy array."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the file is hostile: numpy's header parser raises a dozen kinds of error on it
        raise Violation(FailureLabel.NO_METRIC, f"expected an .npy array of predictions: {error}") from error
    if not isinstance(array, np.ndarray):
        raise Violation(FailureLabel.NO_METRIC, f"expected an .npy array of predictions, found {type(array).__name__}")
    return array


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _load(path: Path) -> MeasuringCode:
    spec = importlib.util.spec_from_file_location("labtrail_task_measure", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path}: expected a Python module with prepare, challenges and score")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("prepare", "challenges", "score"):
        if not callable(getattr(module, name, None)):
            raise TaskError(f"{path}: expected a function {name}, found none")
    return cast(MeasuringCode, module)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _tell(answers: TextIO, message: Mapping[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def main(arguments: Sequence[str]) -> None:
    """`python -m evaluators.measure TASK PUBLIC HIDDEN KEY`, started by MeasuringProcess."""
    task, public, hidden, key = (Path(argument) for argument in arguments)
    # What measuring code prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        evaluator = Evaluator(Task.load(task), public, hidden, SigningKey.load(key))
    except Exception as error:  # the process boundary, as in `serve`
        _tell(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    serve(evaluator, sys.stdin, answers)


if __name__ == "__main__":
    main(sys.argv[1:])
