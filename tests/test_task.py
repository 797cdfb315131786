"""The task contract: what is accepted, how errors read, what the digest covers."""

from pathlib import Path

import pytest

from evaluators.gates import forbidden
from evaluators.task import Task, TaskError, builtin_tasks, find_task

TOML = """
name = "tiny"
title = "A tiny task"
[recipe]
dir = "recipe"
files = ["train.py"]
train = ["python", "train.py", "--out", "{out}"]
predict = ["python", "train.py", "--output", "{output}"]
max_bytes = 1000
[metric]
name = "loss"
unit = "nat"
direction = "minimize"
[[gates]]
metric = "artifact_bytes"
at_most = 100
label = "size_over_limit"
[budgets]
train_s = 5.0
predict_s = 5.0
memory_bytes = 1_000_000
log_bytes = 1000
processes = 4
threads = 1
[seeds]
baseline = 2
trial = 1
[noise]
confidence = 0.95
[evaluator]
module = "measure.py"
[[specialists]]
name = "opt"
domain = "opt"
charter = "The optimiser."
files = ["train.py"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "train.py").write_text("print('hello')\n")
    (tmp_path / "measure.py").write_text("x = 1\n")
    (tmp_path / "task.toml").write_text(TOML)
    return tmp_path


def edited(folder: Path, old: str, new: str) -> Path:
    assert old in TOML
    (folder / "task.toml").write_text(TOML.replace(old, new))
    return folder


def test_a_good_task_loads_with_its_recipe(folder: Path) -> None:
    task = Task.load(folder)
    assert task.contract.metric.direction == "minimize"
    assert task.recipe().files == {"train.py": "print('hello')\n"}


def test_the_digest_covers_the_contract_and_not_the_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for path in folder.rglob("*"):
        if path.is_file():
            target = other / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert Task.load(folder).contract.digest == Task.load(other).contract.digest
    changed = Task.load(edited(other, "confidence = 0.95", "confidence = 0.99"))
    assert changed.contract.digest != Task.load(folder).contract.digest


def test_the_evaluator_digest_changes_with_the_measuring_code(folder: Path) -> None:
    before = Task.load(folder).evaluator_digest()
    (folder / "measure.py").write_text("x = 2\n")
    assert Task.load(folder).evaluator_digest() != before


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('unit = "nat"', 'unit = "nat"\ncolour = "red"', "metric.colour"),
        ('unit = "nat"\n', "", "metric.unit"),
        ('direction = "minimize"', 'direction = "down"', "metric.direction"),
        ("train_s = 5.0", "train_s = -5.0", "budgets.train_s"),
        ("at_most = 100", "at_most = 100\nat_least = 1", "exactly one of at_least and at_most"),
        ('label = "size_over_limit"', 'label = "too_big"', "gates.0.label"),
        ('domain = "opt"', 'domain = "optimizer"', "specialists.0.domain"),
        ('charter = "The optimiser."\nfiles = ["train.py"]', 'charter = "x"\nfiles = ["other.py"]', "'other.py'"),
        ('module = "measure.py"', 'module = "absent.py"', "absent.py"),
        ('files = ["train.py"]\ntrain', 'files = ["train.py", "gone.py"]\ntrain', "gone.py"),
        ("baseline = 2", "baseline = 1", "seeds.baseline"),
        ('name = "tiny"', 'name = "Tiny Task"', "name"),
    ],
)
def test_a_wrong_key_is_named_in_one_line(folder: Path, old: str, new: str, expected: str) -> None:
    with pytest.raises(TaskError) as caught:
        Task.load(edited(folder, old, new))
    assert expected in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_toml_is_told(folder: Path) -> None:
    (folder / "task.toml").write_text("name = [")
    with pytest.raises(TaskError, match="expected TOML"):
        Task.load(folder)


def test_an_unknown_name_lists_the_tasks_there_are() -> None:
    with pytest.raises(TaskError, match="airbench-cpu, golf-cpu"):
        find_task("airbench")


@pytest.mark.parametrize("task", builtin_tasks(), ids=lambda task: task.contract.name)
def test_every_builtin_task_is_legal_before_any_edit(task: Task) -> None:
    recipe = task.recipe()
    assert recipe.size_bytes <= task.contract.recipe.max_bytes
    assert len(recipe.program) == 64
    assert {"arch", "opt", "sched", "reg", "data"} <= {specialist.domain for specialist in task.contract.specialists}
    for path, text in recipe.files.items():
        assert forbidden(task.contract.legality, path, text) is None
