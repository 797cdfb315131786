"""The measuring process: separate, signed, and deaf to what a recipe or task code prints."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evaluators.measure import MeasurementError, MeasuringProcess, RunClaim
from evaluators.signing import is_signed
from evaluators.task import Task, Violation
from ledger.keys import SigningKey
from tests.conftest import TOY, copy_toy

DIGEST = "0" * 64


@pytest.fixture
def place(tmp_path: Path, evaluator_key: SigningKey) -> Path:
    for name in ("public", "hidden"):
        (tmp_path / name).mkdir()
    return tmp_path


def start(place: Path, task: Path = TOY) -> MeasuringProcess:
    key, log = place / "keys" / "evaluator.key", place / "measure.log"
    return MeasuringProcess(Task.load(task), place / "public", place / "hidden", key, log)


@pytest.fixture
def instrument(place: Path) -> Iterator[MeasuringProcess]:
    with start(place) as process:
        yield process


def claim(nonce: int, *answers: Path) -> RunClaim:
    return RunClaim("toy-1", 1, 0, 7, nonce, DIGEST, DIGEST, {"train_cpu_s": 0.25}, tuple(map(str, answers)))


def perfect(place: Path, nonce: int) -> np.ndarray:
    y: np.ndarray = np.load(place / "hidden" / "validation" / "y.npy")
    return y[np.random.default_rng(nonce).permutation(len(y))]


def test_a_score_is_computed_from_predictions_and_signed(
    place: Path, instrument: MeasuringProcess, evaluator_key: SigningKey
) -> None:
    nonce, challenges = instrument.challenges()
    assert len(challenges) == 1
    np.save(place / "answer.npy", perfect(place, nonce))
    score = instrument.score(claim(nonce, place / "answer.npy"))
    assert score.metrics == {"train_cpu_s": "0.25", "val_mse": "0.0"}
    assert score.epoch == instrument.epoch
    assert is_signed(evaluator_key.verifier, "toy-1", 1, score)
    assert not is_signed(evaluator_key.verifier, "toy-1", 2, score)
    assert not is_signed(evaluator_key.verifier, "toy-1", 1, score.model_copy(update={"seed": 8}))


def test_each_run_has_a_nonce_of_its_own(instrument: MeasuringProcess) -> None:
    assert len({instrument.challenges()[0] for _ in range(5)}) == 5


def header(text: bytes) -> bytes:
    """A .npy file of nothing but its header."""
    padded = text.ljust(118)
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"", "no_metric"),
        (b"val_mse 0.0", "no_metric"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "no_metric"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }", "no_metric"),
        (header(b"{[]: 1}"), "no_metric"),
        (header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,)}" % (10**14)), "no_metric"),
        (header(b'{"descr": """'), "no_metric"),
        (header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,)}" % (10**30)), "no_metric"),
    ],
    ids=["empty", "text", "pickled objects", "a header that lies", "lists", "memory", "tokens", "overflow"],
)
def test_garbage_instead_of_predictions_has_no_metric(
    place: Path, instrument: MeasuringProcess, content: bytes, label: str
) -> None:
    nonce, _ = instrument.challenges()
    (place / "answer.npy").write_bytes(content)
    with pytest.raises(Violation) as caught:
        instrument.score(claim(nonce, place / "answer.npy"))
    assert caught.value.label == label


def test_nan_predictions_are_labelled(place: Path, instrument: MeasuringProcess) -> None:
    nonce, _ = instrument.challenges()
    np.save(place / "answer.npy", perfect(place, nonce) * np.nan)
    with pytest.raises(Violation) as caught:
        instrument.score(claim(nonce, place / "answer.npy"))
    assert caught.value.label == "nonfinite_metric"


def test_missing_predictions_have_no_metric(instrument: MeasuringProcess) -> None:
    nonce, _ = instrument.challenges()
    with pytest.raises(Violation) as caught:
        instrument.score(claim(nonce))
    assert caught.value.label == "no_metric"


def test_the_process_goes_on_after_a_violation(place: Path, instrument: MeasuringProcess) -> None:
    nonce, _ = instrument.challenges()
    with pytest.raises(Violation):
        instrument.score(claim(nonce))
    np.save(place / "answer.npy", perfect(place, nonce))
    assert instrument.score(claim(nonce, place / "answer.npy")).metrics["val_mse"] == "0.0"


def broken_task(place: Path, code: str) -> Path:
    folder = copy_toy(place / "task")
    (folder / "measure.py").write_text((folder / "measure.py").read_text() + code)
    return folder


def test_a_killed_measuring_process_comes_back_as_the_same_instrument(
    place: Path, instrument: MeasuringProcess, evaluator_key: SigningKey
) -> None:
    epoch = instrument.epoch
    os.kill(instrument._process.pid, signal.SIGKILL)
    with pytest.raises(MeasurementError, match="exit code -9"):
        instrument.challenges()
    (place / "public" / "planted.npy").write_bytes(b"")
    instrument.restart()
    assert instrument.epoch == epoch
    nonce, _ = instrument.challenges()
    np.save(place / "answer.npy", perfect(place, nonce))
    assert is_signed(evaluator_key.verifier, "toy-1", 1, instrument.score(claim(nonce, place / "answer.npy")))


def test_a_stopped_measuring_process_is_not_waited_for_without_end(
    instrument: MeasuringProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(instrument._process.pid, signal.SIGSTOP)
    monkeypatch.setattr("evaluators.measure.PATIENCE_S", 0.5)
    with pytest.raises(MeasurementError, match="said nothing"):
        instrument.challenges()
    monkeypatch.undo()
    instrument.restart()
    assert instrument.challenges()[0] >= 0


def test_what_measuring_code_prints_is_not_an_answer(place: Path) -> None:
    task = broken_task(place, "\nprint('{\"score\": 0}')\n")
    with start(place, task) as process:
        assert process.challenges()[0] >= 0


def test_measuring_code_that_fails_is_an_infrastructure_failure(place: Path) -> None:
    task = broken_task(place, "\ndef score(hidden, nonce, outputs):\n    raise RuntimeError('disk gone')\n")
    with start(place, task) as process, pytest.raises(MeasurementError, match="disk gone"):
        process.score(claim(process.challenges()[0]))


def test_a_measuring_process_that_dies_is_told(place: Path) -> None:
    task = broken_task(place, "\nimport os\ndef score(hidden, nonce, outputs):\n    os._exit(3)\n")
    with start(place, task) as process, pytest.raises(MeasurementError, match="exit code 3"):
        process.score(claim(process.challenges()[0]))


def test_the_measuring_process_does_not_see_the_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    code = "\nimport os\ndef challenges(hidden, nonce):\n    assert not [n for n in os.environ if 'KEY' in n]\n"
    code += "    return []\n"
    with start(place, broken_task(place, code)) as process:
        assert process.challenges()[1] == ()
