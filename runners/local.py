"""The runner for this machine: recipes run as confined children of one warm process."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from evaluators.task import Budgets
from ledger.events import ProcessFacts
from runners.isolation import choose
from runners.machine import device_files, gpus
from runners.namespaces import DATA, WORKSPACE
from runners.protocol import InfrastructureError, RunResult, RunSpec
from runners.sandbox import Limits
from runners.tree import MARK, sweep
from runners.workspace import Artifact, Refused, freeze, open_plain, remove, write_recipe
from runners.zygote import BOOT, Order, receive, send

PASSED = ("PATH", "LD_LIBRARY_PATH", "TZ", "CUDA_VISIBLE_DEVICES")
"""The variables of the supervisor's environment that a recipe sees. No name here may ever hold a secret."""
PRELOAD_S = 300.0
"""How long importing a task's libraries may take."""
GRACE_S = 20.0
"""How long after a wall budget the warm process may take to kill, count and tell."""


class LocalRunner:
    """Runs recipes on this machine. Not for use by two threads at a time."""

    name = "local"

    def __init__(self, isolation: str | None = None) -> None:
        """`isolation` is a tier of `runners.isolation`; the strongest that works here where it is not given."""
        self.isolation = isolation or choose(None)
        self._warm: _WarmProcess | None = None

    def run(self, spec: RunSpec, into: Path) -> RunResult:
        """As `Runner.run`. The first run of a task waits for its libraries."""
        load_1m = os.getloadavg()[0]
        try:
            return _Run(self._ready(spec), spec, into.absolute()).result(load_1m)
        except OSError as error:
            raise InfrastructureError(f"expected to run a recipe below {into}, the system refuses: {error}") from error

    def close(self) -> None:
        """End the warm process."""
        if self._warm is not None:
            self._warm.end()
            self._warm = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ready(self, spec: RunSpec) -> "_WarmProcess":
        """The warm process for this contract; a new one where it is dead or holds other libraries."""
        contract = spec.contract
        devices = device_files() if contract.budgets.gpus else ()
        wanted = (self.isolation, contract.recipe.preload, contract.budgets.threads, devices)
        if self._warm is None or not self._warm.alive or self._warm.holds != wanted:
            self.close()
            self._warm = _WarmProcess(*wanted)
        return self._warm


class _Run:
    """One run: training, then a prediction for each challenge, each in a folder that is gone when the next begins."""

    def __init__(self, warm: "_WarmProcess", spec: RunSpec, into: Path) -> None:
        self._warm, self._spec, self._into = warm, spec, into
        self._log = bytearray()
        self._output_bytes = 0

    def result(self, load_1m: float) -> RunResult:
        train, artifact = self._train()
        predict, answers = self._predict(artifact) if artifact else ((), ())
        return RunResult(
            train=train,
            predict=predict,
            artifact=artifact.manifest if artifact else None,
            artifact_bytes=artifact.size_bytes if artifact else None,
            answers=answers,
            log=bytes(self._log[: self._spec.contract.budgets.log_bytes]),
            load_1m=load_1m,
            host=socket.gethostname(),
            gpus=gpus() if self._spec.contract.budgets.gpus else (),
            threads=self._spec.contract.budgets.threads,
        )

    def _train(self) -> tuple[ProcessFacts, Artifact | None]:
        cell = self._cell("train")
        (cell / "out").mkdir()
        inside, data = self._inside(cell), self._spec.data.absolute()
        words = {"{data}": DATA if self._is_in_room else str(data), "{out}": str(inside / "out")}
        words["{seed}"] = str(self._spec.seed)
        recipe, budgets = self._spec.contract.recipe, self._spec.contract.budgets
        facts = self._execute(cell, _filled(recipe.train, words), budgets.train_s)
        artifact = None
        if _succeeded(facts):
            remove(self._into / "artifact")
            try:
                artifact = freeze(self._into, "train/out", self._into / "artifact")
            except Refused as reason:
                self._note(f"--- artifact refused: {reason} ---\n")
        # What training wrote elsewhere is not part of the artifact and must not reach the predictions.
        remove(cell)
        return facts, artifact

    def _predict(self, artifact: Artifact) -> tuple[tuple[ProcessFacts, ...], tuple[Path, ...]]:
        facts: list[ProcessFacts] = []
        answers: list[BinaryIO] = []
        with ExitStack() as files:
            try:
                for index, challenge in enumerate(self._spec.challenges):
                    cell = self._prepare(index, challenge, artifact)
                    facts.append(self._answer(index, cell))
                    if not _succeeded(facts[-1]):
                        break
                    answers.append(files.enter_context(open_plain(self._into, f"{cell.name}/output/answer.npy")))
                    # The open file is all that is left: a later prediction finds neither this challenge nor its answer.
                    remove(cell)
            except (Refused, FileNotFoundError) as reason:
                self._note(f"--- no answer: {reason} ---\n")
            return tuple(facts), self._written(answers)

    def _prepare(self, index: int, challenge: bytes, artifact: Artifact) -> Path:
        cell = self._cell(f"predict-{index}")
        artifact.copy(cell / "model")
        (cell / "output").mkdir()
        (cell / "input.npy").write_bytes(challenge)
        return cell

    def _answer(self, index: int, cell: Path) -> ProcessFacts:
        inside = self._inside(cell)
        words = {"{model}": str(inside / "model"), "{input}": str(inside / "input.npy")}
        words["{output}"] = str(inside / "output" / "answer.npy")
        words["{seed}"] = str(self._spec.seed)
        contract = self._spec.contract
        return self._execute(cell, _filled(contract.recipe.predict, words), contract.budgets.predict_s)

    @property
    def _is_in_room(self) -> bool:
        return self._warm.isolation == "namespaces"

    def _inside(self, cell: Path) -> Path:
        """A cell's path as its process finds it."""
        return Path(WORKSPACE) if self._is_in_room else cell

    def _cell(self, name: str) -> Path:
        """A new folder with the recipe and an empty home, whatever an earlier process left under its name."""
        cell = self._into / name
        remove(cell)
        cell.mkdir()
        (cell / "home").mkdir()
        write_recipe(self._spec.recipe, cell / "recipe")
        return cell

    def _execute(self, cell: Path, argv: tuple[str, ...], wall_s: float) -> ProcessFacts:
        budgets = self._spec.contract.budgets
        limits = _limits(budgets, wall_s, max(0, budgets.log_bytes - self._output_bytes))
        self._note(f"--- {cell.name} ---\n")
        data = str(self._spec.data.absolute()) if cell.name == "train" else None
        order = Order(argv, str(cell), str(self._inside(cell)), data, limits)
        facts, output = self._warm.execute(order)
        self._output_bytes += facts.log_bytes
        self._log += output
        return facts

    def _note(self, line: str) -> None:
        if self._log and not self._log.endswith(b"\n"):
            self._log += b"\n"
        self._log += line.encode()

    def _written(self, answers: list[BinaryIO]) -> tuple[Path, ...]:
        folder = self._into / "answers"
        remove(folder)
        folder.mkdir()
        paths = tuple(folder / f"{index}.npy" for index in range(len(answers)))
        for answer, path in zip(answers, paths, strict=True):
            with path.open("xb") as file:
                shutil.copyfileobj(answer, file)
        return paths


class _Lost(InfrastructureError):
    """The warm process died or had to be killed."""


class _WarmProcess:
    """The supervisor's end of a warm process."""

    def __init__(self, isolation: str, preload: tuple[str, ...], threads: int, devices: tuple[str, ...]) -> None:
        self.holds = (isolation, preload, threads, devices)
        self.isolation = isolation
        self._mark = secrets.token_hex(16)
        self._home = Path(tempfile.mkdtemp(prefix="labtrail-runner-"))
        self._channel, far_end = socket.socketpair()
        package = str(Path(__file__).absolute().parents[1])
        # -P and -s: neither the working folder nor the user's packages; -B: recipes leave no bytecode behind.
        command = [sys.executable, "-P", "-s", "-B", "-c", BOOT, package, str(far_end.fileno()), str(os.getpid())]
        with far_end, (self._home / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [*command, isolation, os.pathsep.join(devices), *preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=_environment(self._home, threads, self._mark),
                cwd=self._home,
                pass_fds=(far_end.fileno(),),
                start_new_session=True,
            )
        self._ask(None, PRELOAD_S)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def execute(self, order: Order) -> tuple[ProcessFacts, bytes]:
        """Facts and log of one process tree. Raises InfrastructureError; the warm process is then gone.

        Where the warm process dies or stops under a recipe that can reach it, the facts say so instead.
        """
        began_s = time.monotonic()
        try:
            message, output = self._ask(asdict(order), order.limits.wall_s + GRACE_S)
        except _Lost as lost:
            if self.isolation != "process":
                raise
            # In this tier a recipe can do it, and would be given the same seed again: it is the recipe's own end.
            return _ended_with_runner(time.monotonic() - began_s), f"--- {lost} ---\n".encode()
        return ProcessFacts.model_validate(message), output

    def end(self) -> None:
        """End the process with everything below it."""
        self._channel.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode != 0:
            sweep(self._mark)
        remove(self._home)

    def _ask(self, request: Mapping[str, object] | None, patience_s: float) -> tuple[Mapping[str, object], bytes]:
        """Send `request` where there is one, and wait. Whatever goes wrong, nothing of the recipe goes on running."""
        try:
            self._channel.settimeout(patience_s)
            if request is not None:
                send(self._channel, request)
            message, output = receive(self._channel)
        except TimeoutError as error:
            self._kill()
            raise _Lost(f"the warm process said nothing for {patience_s:.0f} s; it was killed") from error
        except (EOFError, ConnectionError) as error:
            raise _Lost(self._death()) from error
        except BaseException:
            self.end()
            raise
        if "error" in message:
            self.end()
            raise InfrastructureError(f"the warm process cannot work: {message['error']}")
        return message, output

    def _kill(self) -> None:
        self._process.kill()
        self.end()

    def _death(self) -> str:
        lines = (self._home / "stderr").read_text(errors="replace").strip().splitlines()
        self.end()
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the warm process {how}: {lines[-1] if lines else 'it printed nothing'}; the next run starts a new one"


def _ended_with_runner(wall_s: float) -> ProcessFacts:
    """Nobody was left to count."""
    return ProcessFacts(
        exit_code=None, signal=None, killed_for="runner", wall_s=wall_s, cpu_s=0.0, max_rss_bytes=0, log_bytes=0
    )


def _environment(home: Path, threads: int, mark: str) -> dict[str, str]:
    environment = {name: os.environ[name] for name in PASSED if name in os.environ}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment |= {"LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home), MARK: mark}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # One warm process has one hash seed for all its children: a fixed one is the same in the next process, too.
    return environment | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def _limits(budgets: Budgets, wall_s: float, log_bytes: int) -> Limits:
    return Limits(wall_s, budgets.memory_bytes, log_bytes, budgets.written_bytes, budgets.processes, budgets.threads)


def _filled(command: tuple[str, ...], words: Mapping[str, str]) -> tuple[str, ...]:
    """The command line with every placeholder replaced; braces that are no placeholder stay as they are."""
    pattern = re.compile("|".join(map(re.escape, words)))
    return tuple(pattern.sub(lambda found: words[found[0]], argument) for argument in command)


def _succeeded(facts: ProcessFacts) -> bool:
    return facts.exit_code == 0 and facts.killed_for is None
