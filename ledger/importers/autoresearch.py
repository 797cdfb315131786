"""Folders of karpathy/autoresearch and its forks: the results.tsv that the agent writes, and the commits it names."""

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ledger.imported import ImportedTask, ImportedTrial
from ledger.importers.record import ImportFault, Record, Run, Source, lines_of, name_of, number, prose, text_of
from ledger.vocabulary import Evidence, FailureLabel, Verdict

NAME = "autoresearch"
RESULTS = "results.tsv"
RECIPE = "train.py"
"""The one file that the agent edits."""
STATUSES: dict[str, tuple[Verdict, FailureLabel | None]] = {
    "keep": (Verdict.KEPT, None),
    "discard": (Verdict.DISCARDED, None),
    "crash": (Verdict.FAILED, FailureLabel.CRASH),
}
TASKS: dict[str, ImportedTask] = {
    "val_bpb": ImportedTask(name="autoresearch", metric="val_bpb", unit="bits/byte", direction="minimize", limits={}),
    "score": ImportedTask(name="autoresearch", metric="score", unit="1", direction="maximize", limits={}),
}
"""By the metric's column: that of the original and that of its forks with a score."""
_COMMIT = re.compile(r"[0-9a-f]{4,40}")


def finds(folder: Path) -> bool:
    """Whether the folder holds a results.tsv that begins with a commit and ends with status and description."""
    results = folder / RESULTS
    if not results.is_file():
        return False
    with results.open("rb") as file:
        header = file.readline(10_000).decode(errors="replace").strip().split("\t")
    return header[0] == "commit" and header[-2:] == ["status", "description"]


def read(folder: Path) -> Run:
    """The run of a folder; trial 0 is its first row, which the protocol says is the baseline. Raises ImportFault."""
    path = folder / RESULTS
    lines = lines_of(path)
    header = text_of(lines[0], f"{path}, line 1").strip().split("\t")
    task = next((task for metric, task in TASKS.items() if metric in header), None)
    if task is None:
        raise ImportFault(f"{path}: expected a column {' or '.join(TASKS)}, found {', '.join(header)}")
    records = [Record(1, lines[0])]
    known: dict[str, int] = {}
    """Full commit -> the trial that ran it."""
    for line, raw in enumerate(lines[1:], start=2):
        if not raw.strip():
            records.append(Record(line, raw))
            continue
        if line == len(lines) and not raw.endswith(b"\n") and raw.count(b"\t") < len(header) - 1:
            raise ImportFault(f"{path}, line {line}: expected {len(header)} columns, found the file cut")
        trial_number = sum(record.trial is not None for record in records)
        trial, code = _trial(folder, raw.decode().rstrip("\r\n").split("\t"), header, task, trial_number, known)
        records.append(Record(line, raw, trial_number, trial, {} if code is None else {f"code/{RECIPE}": code}))
    source = Source(RESULTS, hashlib.sha256(b"".join(lines)).hexdigest(), tuple(records))
    return Run(NAME, name_of(folder.resolve().name), task, (source,))


def _trial(
    folder: Path, cells: list[str], header: list[str], task: ImportedTask, number_: int, known: dict[str, int]
) -> tuple[ImportedTrial, bytes | None]:
    """One row as a trial, with the code of its commit where the repository still has it."""
    repaired: list[str] = []
    unknown: list[str] = []
    if len(cells) > len(header):
        cells = [*cells[: len(header) - 1], " ".join(cells[len(header) - 1 :])]
        repaired.append("tabs in the description read as spaces")
    elif len(cells) < len(header):
        unknown.append(f"expected {len(header)} columns, found {len(cells)}")
    columns = {**dict.fromkeys(header, ""), **dict(zip(header, cells, strict=False))}
    verdict, label = STATUSES.get(columns["status"], (None, None))
    if verdict is None:
        unknown.append(f"status {name_of(columns['status'])!r} is not known")
    if number_ == 0 and verdict is Verdict.KEPT:
        verdict = Verdict.BASELINE
    metrics: dict[str, str] = {}
    for name in header[1:-2]:
        value = number(columns[name], name, repaired, [])
        if value is not None:
            metrics[name] = value
    score = None if verdict is Verdict.FAILED else metrics.pop(task.metric, None)
    commit = _commit(folder, columns["commit"])
    code = None if commit is None else _git(folder, "cat-file", "blob", f"{commit.digest}:{RECIPE}")
    if commit is None:
        unknown.append("the commit is not in the repository: its code and parent are lost")
    else:
        known[commit.digest] = number_
    parent = None if commit is None or commit.parent is None else known.get(commit.parent)
    has = {
        Evidence.HYPOTHESIS: bool(columns["description"]),
        Evidence.PARENT: parent is not None or number_ == 0,
        Evidence.SCORE: score is not None or label is not None,
        Evidence.CODE: code is not None,
        Evidence.TIME: commit is not None,
    }
    trial = ImportedTrial(
        key=name_of(columns["commit"]),
        parent=parent,
        parent_written="" if parent is None else str(parent),
        specialist=None,
        claimed_domain=None,
        hypothesis=prose(columns["description"]),
        notes="",
        expected_delta=None,
        status=name_of(columns["status"]),
        verdict=verdict,
        label=label,
        score=score,
        score_std=None,
        score_n=None,
        delta_written=None,
        metrics=metrics,
        at=None if commit is None else commit.at,
        seconds=None,
        usd=None,
        evidence=tuple(kind for kind, there in has.items() if there),
        repaired=tuple(repaired),
        unknown=tuple(unknown),
        differs=(),
    )
    return trial, code


def _commit(folder: Path, written: str) -> "_Commit | None":
    """The commit as the repository stores it; None where it does not have it."""
    if not _COMMIT.fullmatch(written):
        return None
    full = _git(folder, "rev-parse", "--verify", "--quiet", f"{written}^{{commit}}")
    stored = None if full is None else _git(folder, "cat-file", "commit", full.decode().strip())
    if full is None or stored is None:
        return None
    head = stored.partition(b"\n\n")[0].decode(errors="replace")
    parent = re.search(r"^parent ([0-9a-f]{40,64})$", head, re.MULTILINE)
    at = re.search(r"^committer .* (\d{1,12}) [+-]\d{4}$", head, re.MULTILINE)
    return _Commit(
        digest=full.decode().strip(),
        parent=None if parent is None else parent[1],
        at=None if at is None else datetime.fromtimestamp(int(at[1]), UTC).isoformat(),
    )


@dataclass(frozen=True)
class _Commit:
    """What a commit tells of a trial."""

    digest: str
    parent: str | None
    at: str | None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What a plumbing command of git prints; None where it fails or there is no repository.

    The repository is not trusted: its settings could name programs to run, so nothing is fetched, signed or shown.
    """
    safe = {
        "PATH": os.defpath,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=folder,
            env=safe,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
