"""The diff of one edit, each hunk with what it changes in meaning."""

from collections.abc import Iterator
from difflib import SequenceMatcher

from audit.domains.report import Change, EditReport
from ledger.recipes import Recipe

CONTEXT_LINES = 2


def annotated(old: Recipe, new: Recipe, report: EditReport) -> Iterator[str]:
    """Lines of a unified diff; after the head of each hunk one line a change, `#` surface, kind, symbol, evidence.

    A hunk that only moves, renames, formats or comments says so. Changes that stand in no hunk come last.
    """
    left = list(report.changes)
    for path in sorted(old.files.keys() | new.files.keys()):
        before, after = old.files.get(path, "").splitlines(), new.files.get(path, "").splitlines()
        if before == after:
            continue
        yield f"--- {path if path in old.files else '/dev/null'}"
        yield f"+++ {path if path in new.files else '/dev/null'}"
        for hunk in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(CONTEXT_LINES):
            (_, i1, _, j1, _), (_, _, i2, _, j2) = hunk[0], hunk[-1]
            yield f"@@ -{i1 + 1},{i2 - i1} +{j1 + 1},{j2 - j1} @@"
            mine = [change for change in report.changes if _stands_in(change, path, (i1, i2), (j1, j2))]
            yield from (_note(change) for change in mine) if mine else ["# no change of meaning by itself"]
            left = [change for change in left if change not in mine]
            for tag, a, b, c, d in hunk:
                if tag == "equal":
                    yield from (f" {line}" for line in before[a:b])
                else:
                    yield from (f"-{line}" for line in before[a:b])
                    yield from (f"+{line}" for line in after[c:d])
    yield from (_note(change) for change in left)


def _stands_in(change: Change, path: str, old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether the lines of a change meet a hunk: those of the new version, or of the old one where the code is gone."""
    start, stop = old if change.new is None else new
    first, last = change.lines
    return change.file == path and first <= stop and last > start


def _note(change: Change) -> str:
    serves = ", follows another change" if change.follows else ""
    return (
        f"# {change.domain}, {change.kind}{serves}: {change.file}:{change.lines[0]} {change.symbol}: {change.evidence}"
    )
