"""Checks of what was written: edited rows, parents, leaked markup, failures of the machine, test submissions."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby

from audit.claims.account import Account, Told
from audit.claims.finding import Sign, Weight, count, sign
from ledger.vocabulary import FailureLabel, Verdict

STREAK = 6
"""Failures with one label in a row that point to a cause outside the single trial."""
_TIME = re.compile(r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z?")
_MACHINE = re.compile(
    r"\b(?:ssh|rsync|sync(?:ing)? fail\w*|NCCL|no space left|disk quota|connection (?:refused|reset|closed|timed out)|"
    r"preempt\w*|node fail\w*|infrastructure|infra[- ]fail\w*|job (?:lost|not found)|permission denied|host key)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"</?(?:hypothesis|notes|parameter|invoke|function_calls|tool_call|expected_delta)\b[^>]*>")
_TEST = re.compile(
    r"^\W*(?:test(?:ing)?|ping|hello|no-?op)\W*$|\btest (?:submission|of the (?:harness|tool|pipeline))\b"
    r"|^\W*(?:dummy|placeholder|smoke[- ]?test|sanity[- ]check)\b",
    re.IGNORECASE,
)


def edited(account: Account) -> Iterator[Sign]:
    """Rows that were written again after their time, and copies of one fact that differ."""
    later = [trial for trial in account.trials if _speaks_of_later(trial)]
    if later:
        yield sign(
            Weight.SERIOUS,
            f"{count(len(later), 'row')} with a later time in the text than its own: edited afterwards",
            later,
        )
    apart = [trial for trial in account.trials if trial.differs]
    if apart:
        first = apart[0].differs[0]
        yield sign(
            Weight.NOTABLE,
            f"{count(len(apart), 'trial')} with two copies that differ: at least one was edited "
            f"(trial {apart[0].number}: {first})",
            apart,
        )


def _speaks_of_later(trial: Told) -> bool:
    if trial.at is None:
        return False
    for found in _TIME.findall(f"{trial.hypothesis} {trial.notes}"):
        try:
            said = datetime.fromisoformat(found)
        except ValueError:
            continue
        if (said if said.tzinfo else said.replace(tzinfo=UTC)) > trial.at:
            return True
    return False


def parents(account: Account) -> Iterator[Sign]:
    """Declared parents: there, written like an id, earlier than their child, and with a result to build on."""
    known = account.by_number
    children = [trial for trial in account.trials if trial.verdict is not Verdict.BASELINE]
    orphans = [trial for trial in children if trial.parent is None]
    if orphans:
        yield sign(Weight.NOTABLE, f"{count(len(orphans), 'trial')} without a parent that can be read", orphans)
    gone = [trial for trial in children if trial.parent is not None and trial.parent not in known]
    if gone:
        yield sign(Weight.SERIOUS, f"{count(len(gone), 'trial')} with a parent that is not in the record", gone)
    late = [trial for trial in children if trial.parent is not None and trial.parent >= trial.number]
    if late:
        yield sign(Weight.SERIOUS, f"{count(len(late), 'trial')} with itself or a later trial as parent", late)
    odd = [trial for trial in children if trial.parent is not None and not trial.parent_written.isdecimal()]
    if odd:
        yield sign(
            Weight.MINOR,
            f"{count(len(odd), 'parent')} not written like an id (trial {odd[0].number}: {odd[0].parent_written!r}), "
            "so that a join by id loses it",
            odd,
        )
    lost = [
        trial
        for trial in children
        if trial.parent in known and known[trial.parent].verdict in (Verdict.FAILED, Verdict.DISQUALIFIED)
    ]
    if lost:
        yield sign(Weight.NOTABLE, f"{count(len(lost), 'trial')} with a parent that failed or was disqualified", lost)


def machine(account: Account) -> Iterator[Sign]:
    """Failures whose words or company point to the machine, not to the idea."""
    failed = [trial for trial in account.trials if trial.verdict is Verdict.FAILED]
    named = [trial for trial in failed if trial.label is FailureLabel.INFRA_ERROR]
    if named:
        yield sign(
            Weight.NOTABLE,
            f"{count(len(named), 'failure')} of the harness: these ideas were never measured",
            named,
        )
    words = [trial for trial in failed if trial not in named and _MACHINE.search(trial.notes)]
    if words:
        yield sign(
            Weight.NOTABLE,
            f"{count(len(words), 'failure')} labelled as the recipe's, with notes about the machine",
            words,
        )
    streaks = [
        group
        for label, found in groupby(
            account.trials, key=lambda trial: trial.label if trial.verdict is Verdict.FAILED else None
        )
        if label not in (None, FailureLabel.INFRA_ERROR) and len(group := list(found)) >= STREAK
    ]
    if streaks:
        longest = max(streaks, key=len)
        yield sign(
            Weight.NOTABLE,
            f"{count(len(streaks), 'streak')} of {STREAK} or more failures in a row with one label, the longest of "
            f"{len(longest)} ({longest[0].label}, trials {longest[0].number} to {longest[-1].number})",
            [trial for group in streaks for trial in group],
        )


def leaks(account: Account) -> Iterator[Sign]:
    """Markup of tool calls in texts, and rows that came apart over it."""
    marked = [
        trial
        for trial in account.trials
        if _MARKUP.search(f"{trial.hypothesis} {trial.notes}") or any("markup" in text for text in trial.repaired)
    ]
    if marked:
        yield sign(Weight.MINOR, f"{count(len(marked), 'trial')} with markup of a tool call in the texts", marked)
    torn = [trial for trial in account.trials if any("tabs turned into spaces" in text for text in trial.repaired)]
    if torn:
        yield sign(
            Weight.NOTABLE,
            f"{count(len(torn), 'row')} came apart: split at tabs, there is no status and no score",
            torn,
        )
    unread = [trial for trial in account.trials if trial.unknown]
    if unread:
        yield sign(Weight.NOTABLE, f"{count(len(unread), 'trial')} with fields that nobody can read", unread)


def trials_of_the_harness(account: Account) -> Iterator[Sign]:
    """Submissions that try the harness, not an idea, and count as trials."""
    found = [trial for trial in account.trials if trial.number and trial.hypothesis and _TEST.match(trial.hypothesis)]
    if found:
        yield sign(Weight.MINOR, f"{count(len(found), 'trial')} in the words of a test of the harness", found)
