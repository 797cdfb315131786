"""Run folders of the published Auto-Research harness (arXiv 2605.05724): rows, their copy, the best, code."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ledger.imported import ImportedTask, ImportedTrial, Limit
from ledger.importers.record import (
    ImportFault,
    Record,
    Run,
    Source,
    content_of,
    lines_of,
    name_of,
    number,
    prose,
    text_of,
    whole,
)
from ledger.importers.tsv import Row, read_rows
from ledger.vocabulary import Evidence, FailureLabel, Verdict

NAME = "arr"
RESULTS, TREE, BEST, BOARD = "results.tsv", "tree.tsv", "best.json", "LEADERBOARD.md"
IDENTITY = ("exp_id", "timestamp", "specialist", "parent_exp", "domain", "hypothesis", "expected_delta", "status")
TEXTS = {*IDENTITY, "baseline_exp", "delta_vs_best", "job_name", "snapshot_path", "notes"}
"""Columns that are no numbers of the run."""
_ITEM = re.compile(r"^- \*\*(\w+)\*\*: (.*)$", re.MULTILINE)
_ASCII = str.maketrans({"→": "->", "×": "x"})
"""Signs that some of the files have in ASCII."""
FULL_SCALE_BYTES = "16000000.0"


def _at_most(value: str) -> Limit:
    return Limit(at_least=None, at_most=value)


TASKS: tuple[ImportedTask, ...] = (
    ImportedTask(
        name="Parameter Golf",
        metric="val_bpb",
        unit="bits/byte",
        direction="minimize",
        limits={
            "artifact_bytes": _at_most(FULL_SCALE_BYTES),
            "train_s": _at_most("600.0"),
            "eval_s": _at_most("600.0"),
        },
    ),
    ImportedTask(
        name="NanoChat-D12",
        metric="core_metric",
        unit="1",
        direction="maximize",
        limits={"total_s": _at_most("5400.0")},
    ),
    ImportedTask(
        name="CIFAR-10 Airbench96",
        metric="train_s",
        unit="s",
        direction="minimize",
        limits={"accuracy": Limit(at_least="0.96", at_most=None), "n_seeds": Limit(at_least="10.0", at_most=None)},
    ),
)
"""The three environments and the bounds that their contracts declare, known by the columns of results.tsv."""

STATUSES: dict[str, tuple[Verdict, FailureLabel | None]] = {
    "baseline": (Verdict.BASELINE, None),
    "keep": (Verdict.KEPT, None),
    "discard": (Verdict.DISCARDED, None),
    "disqualified": (Verdict.DISQUALIFIED, FailureLabel.BELOW_GATE),
    "size_blocked": (Verdict.DISQUALIFIED, FailureLabel.SIZE_OVER_LIMIT),
    "eval_budget_overrun": (Verdict.DISQUALIFIED, FailureLabel.EVAL_OVER_BUDGET),
    "train_budget_overrun": (Verdict.FAILED, FailureLabel.TRAIN_OVER_BUDGET),
    "crash": (Verdict.FAILED, FailureLabel.CRASH),
    "preflight_crash": (Verdict.FAILED, FailureLabel.CRASH),
    "harness_abort": (Verdict.FAILED, FailureLabel.INFRA_ERROR),
}
"""Status as written -> verdict and label here. A disqualified trial ran to its end and broke a bound."""


def finds(folder: Path) -> bool:
    """Whether the folder is a run: it holds results.tsv with this harness's columns, itself or in `blackboard`."""
    results = _board(folder) / RESULTS
    if not results.is_file():
        return False
    with results.open("rb") as file:
        first = file.readline(10_000).decode(errors="replace").rstrip("\r\n").split("\t")
    return set(IDENTITY) <= set(first)


def read(folder: Path) -> Run:
    """The run of a folder. Raises ImportFault."""
    board = _board(folder)
    lines = lines_of(board / RESULTS)
    rows = read_rows(board / RESULTS, lines, "hypothesis", "status", STATUSES)
    columns = rows[0].columns if rows else {}
    task = next((task for task in TASKS if task.metric in columns and set(task.limits) <= set(columns)), None)
    if task is None:
        raise ImportFault(f"{board / RESULTS}: expected the columns of a known environment, found {', '.join(columns)}")
    tree = _tree(board / TREE)
    snapshots = {row.line: _snapshot(board, row) for row in rows}
    records = [Record(number + 1, raw) for number, raw in enumerate(lines)]
    claims = [*_claims(board / BEST), *_board_claims(board / BOARD)]
    for row, trial_number in zip(rows, _numbers(rows), strict=True):
        trial = _trial(row, task, tree, claims, bool(snapshots[row.line]))
        records[row.line - 1] = Record(
            row.line, lines[row.line - 1], trial_number, trial, {f"code/{k}": v for k, v in snapshots[row.line].items()}
        )
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    others = (board / name for name in (TREE, BEST, BOARD))
    sources = (Source(RESULTS, digest, tuple(records)), *(whole(path, path.name) for path in others if path.is_file()))
    return Run(NAME, name_of(folder.parent.name if folder.name == "blackboard" else folder.name), task, sources)


def _board(folder: Path) -> Path:
    return folder / "blackboard" if (folder / "blackboard" / RESULTS).is_file() else folder


def _tree(path: Path) -> dict[str, Row]:
    """The second copy of the rows, by id; nothing where there is none."""
    if not path.is_file():
        return {}
    return {row.columns["exp_id"]: row for row in read_rows(path, lines_of(path), "hypothesis", "status", STATUSES)}


Claim = tuple[str, str, Mapping[str, str]]
"""File, id of the champion, and what the file says of it."""


def _claims(path: Path) -> list[Claim]:
    """What best.json says of the champion."""
    if not path.is_file():
        return []
    try:
        best = json.loads(content_of(path))
        return [(path.name, str(best["exp_id"]), {str(key): str(value) for key, value in best.items()})]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImportFault(f"{path}: expected a JSON object with exp_id; {name_of(str(error))}") from error


def _board_claims(path: Path) -> list[Claim]:
    """What the leaderboard's list of the current best says; its texts are cut short."""
    if not path.is_file():
        return []
    best = text_of(content_of(path), str(path)).partition("## Top")[0]
    said = dict(_ITEM.findall(best))
    number = said.get("exp_id") or said.get("snapshot", "").strip("`").removeprefix("snapshots/").partition("_")[0]
    return [(path.name, number, {key: said[key] for key in ("specialist", "hypothesis") if key in said})]


def _snapshot(board: Path, row: Row) -> dict[str, bytes]:
    """The files of the trial's code snapshot, where it was released."""
    written = row.columns.get("snapshot_path", "")
    folder = board.parent / written
    inside = written and folder.is_dir() and folder.resolve().is_relative_to(board.parent.resolve())
    if not inside:
        return {}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if len(files) > 100:
        raise ImportFault(f"{folder}: expected a snapshot of at most 100 files, found {len(files)}")
    return {str(path.relative_to(folder)): content_of(path) for path in files}


def _numbers(rows: list[Row]) -> list[int]:
    """The trial number of each row: its id, or the next free number where that is taken or is no number."""
    wanted = [int(text) if (text := row.columns["exp_id"]).isdecimal() and len(text) < 10 else None for row in rows]
    free = max((value for value in wanted if value is not None), default=-1) + 1
    taken: set[int] = set()
    numbers: list[int] = []
    for row, value in zip(rows, wanted, strict=True):
        if value is None or value in taken:
            row.unknown.append(f"exp_id {name_of(row.columns['exp_id'])!r} is no number or stands twice: trial {free}")
            value, free = free, free + 1
        taken.add(value)
        numbers.append(value)
    return numbers


def _trial(
    row: Row, task: ImportedTask, tree: Mapping[str, Row], claims: Iterable[Claim], has_code: bool
) -> ImportedTrial:
    """One row as a trial, compared with the other copies of it."""
    columns, repaired, unknown, differs = row.columns, row.repaired, row.unknown, []
    copy = tree.get(columns["exp_id"])
    if copy is not None:
        differs += _against_tree(row, copy, task.metric)
    elif tree:
        differs.append(f"{TREE} has no row for it")
    for file, _, best in (claim for claim in claims if claim[1] == columns["exp_id"]):
        for key, said in best.items():
            if key in ("specialist", "domain", "hypothesis", task.metric) and not _equal(columns.get(key, ""), said):
                differs.append(f"{file}, {key}: {_apart(columns.get(key, ''), said)}")
    verdict, label = STATUSES.get(columns["status"], (None, None))
    if verdict is None:
        unknown.append(f"status {name_of(columns['status'])!r} is not known")
    metrics = {
        name: value
        for name in columns
        if name not in TEXTS and (value := number(columns[name], name, repaired, unknown)) is not None
    }
    score = None if verdict is Verdict.FAILED else metrics.pop(task.metric, None)
    parent = _parent(columns["parent_exp"], repaired, unknown)
    expected = number(columns["expected_delta"], "expected_delta", repaired, unknown)
    seeds = metrics.get("n_seeds")
    has = {
        Evidence.HYPOTHESIS: bool(columns["hypothesis"]),
        Evidence.EXPECTATION: expected is not None,
        Evidence.PARENT: parent is not None or verdict is Verdict.BASELINE,
        Evidence.TIME: bool(columns["timestamp"]),
        Evidence.SCORE: score is not None or label is not None,
        Evidence.CODE: has_code,
        Evidence.COST: "total_s" in metrics,
    }
    return ImportedTrial(
        key=name_of(columns["exp_id"]),
        parent=parent,
        parent_written=name_of(columns["parent_exp"]),
        specialist=name_of(columns["specialist"]) or None,
        claimed_domain=name_of(columns["domain"]) or None,
        hypothesis=prose(columns["hypothesis"]),
        notes=prose(columns.get("notes", "")),
        expected_delta=expected,
        status=name_of(columns["status"]),
        verdict=verdict,
        label=label,
        score=score,
        score_std=None,
        score_n=int(float(seeds)) if seeds is not None and 0 <= float(seeds) < 1e9 else None,
        delta_written=number(columns.get("delta_vs_best", ""), "delta_vs_best", repaired, unknown),
        metrics=metrics,
        at=name_of(columns["timestamp"]) or None,
        seconds=metrics.get("total_s"),
        usd=None,
        evidence=tuple(kind for kind, there in has.items() if there),
        repaired=tuple(repaired),
        unknown=tuple(unknown),
        differs=tuple(differs),
    )


def _against_tree(row: Row, copy: Row, metric: str) -> list[str]:
    """Take from the second copy what the first does not say; returns where both speak and differ."""
    differs: list[str] = []
    for name in ("parent_exp", "specialist", "status", metric, "delta_vs_best", "hypothesis"):
        mine, other = row.columns.get(name, ""), copy.columns.get(name, "")
        if not mine and other:
            row.columns[name] = other
            row.repaired.append(f"{name}: from {TREE}, line {copy.line}")
        elif not _equal(mine, other):
            differs.append(f"{TREE}, line {copy.line}, {name}: {_apart(mine, other)}")
    return differs


def _equal(mine: str, other: str) -> bool:
    """Whether two copies say the same: numbers by value, texts up to white space, and the copy may be cut short."""
    try:
        return float(mine) == float(other)
    except ValueError:
        ours, theirs = "".join(mine.translate(_ASCII).split()), "".join(other.translate(_ASCII).split())
        return ours == theirs or (bool(theirs) and ours.startswith(theirs))


def _apart(mine: str, other: str) -> str:
    """Both texts from a little before the first place where they part."""
    ours, theirs = " ".join(mine.translate(_ASCII).split()), " ".join(other.translate(_ASCII).split())
    at = max(_common(ours, theirs) - 20, 0)
    return f"{name_of(theirs[at : at + 60])!r}, the row has {name_of(ours[at : at + 60])!r}"


def _common(mine: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))


def _parent(written: str, repaired: list[str], unknown: list[str]) -> int | None:
    """The parent's number; `exp_000` stands for `000`."""
    text = written.removeprefix("exp_")
    if not written:
        return None
    if not text.isdecimal() or len(text) > 9:
        unknown.append(f"parent: expected an id, found {name_of(written)!r}")
        return None
    if text != written:
        repaired.append(f"parent: {name_of(written)!r} read as {int(text)}")
    return int(text)
