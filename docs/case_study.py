"""Write docs/case-study.md from the published run records: import, audit, and what both say; `--check` compares."""

import sys
import tempfile
from pathlib import Path

from audit.claims import Account, Finding, Headline, accounts_of, examined, headline_of
from audit.verify import verify
from ledger.importers import discover, read, take
from ledger.log import EventLog

TARGET = Path(__file__).with_name("case-study.md")
HEADLINES = ("pg_main", "nanochat_d12", "cifar")
SHOWN = 6
"""Trials of a finding that are named."""
INTRODUCTION = """# Case study: the published runs of an autonomous research harness

The run records released with arXiv 2605.05724 (`cxcscmu/Auto-Research-Recipes`, `release_artifacts/`, Apache-2.0),
imported and audited. All of this page is written by `python -m docs.case_study RUNS`, where RUNS is that folder; a test
compares it where the data is at hand. The same by hand:

```
labtrail import RUNS --ledger runs.db
audit verify runs.db
audit claims runs.db
```

It says what the records show, not what anybody intended, and names what would settle each point. That the records were
released is what made this possible.
"""


def case_study(runs: Path) -> str:
    """The document. Raises ImportFault where there are no records."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        with EventLog.create(path) as log:
            taken = [take(log, read(found)) for found in discover(runs)]
            accounts = {account.campaign: account for account in accounts_of(log)}
        report = verify(path)
    order = [*HEADLINES, *sorted(accounts.keys() - set(HEADLINES))]
    told = [(accounts[name], headline_of(accounts[name])) for name in order]
    events = sum(outcome.appended for outcome in taken)
    main = sum(head.trials for _, head in told if head.campaign in HEADLINES)
    arch = sum(head.arch_claimed for _, head in told if head.campaign in HEADLINES)
    parts = [
        INTRODUCTION,
        f"{len(taken)} runs, {events:,} records, `audit verify`: {'sound' if report.sound else 'not sound'}. "
        f"The headline runs have {main:,} trials, {arch} of them with claimed domain `arch`; the others have "
        f"{sum(head.trials for _, head in told) - main:,}.",
        _headlines([head for _, head in told]),
        _reading([account for account, _ in told]),
        _evidence([head for _, head in told]),
        "## What gives reason to doubt",
        *(_findings(account) for account, _ in told),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _headlines(heads: list[Headline]) -> str:
    lines = [
        "## Headlines, calculated again",
        "",
        "| run | metric | baseline | champion | change | trials | kept on its path | kept off it | outcomes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for head in heads:
        change = "" if head.change is None else f"{head.change:+.2%}"
        outcomes = ", ".join(f"{count} {name}" for name, count in head.outcomes.items())
        lines.append(
            f"| `{head.campaign}` | {head.metric} | {head.baseline:g} "
            f"| {head.champion_score:g} (trial {head.champion}) | {change} "
            f"| {head.trials} | {head.kept_on_path} | {head.kept_off_path} | {outcomes} |"
        )
    return "\n".join([*lines, "", "No change has an interval: no score of any run stands beside its spread."])


def _reading(accounts: list[Account]) -> str:
    lines = [
        "## What it took to read them",
        "",
        "| run | rows repaired | of them came apart | rows that differ from their copy | rows with unknowns |",
        "|---|---|---|---|---|",
    ]
    for account in accounts:
        torn = sum(any("tabs turned" in text for text in trial.repaired) for trial in account.trials)
        counts = [
            sum(bool(found) for found in column)
            for column in zip(
                *((trial.repaired, trial.differs, trial.unknown) for trial in account.trials), strict=True
            )
        ]
        lines.append(f"| `{account.campaign}` | {counts[0]} | {torn} | {counts[1]} | {counts[2]} |")
    return "\n".join(lines)


def _evidence(heads: list[Headline]) -> str:
    kinds = list(heads[0].evidence)
    lines = [
        "## Evidence",
        "",
        "Share of a run's trials with each kind of evidence in the record; auditability is the mean over all kinds.",
        "",
        f"| evidence | {' | '.join(f'`{head.campaign}`' for head in heads)} |",
        "|---|" + "---|" * len(heads),
    ]
    lines += [f"| {kind} | {' | '.join(f'{head.evidence[kind]:.0%}' for head in heads)} |" for kind in kinds]
    scores = " | ".join(f"**{head.auditability:g}**" for head in heads)
    return "\n".join([*lines, f"| **auditability, of 100** | {scores} |"])


def _findings(account: Account) -> str:
    lines = [
        f"### {account.campaign}",
        "",
        "| weight | check | the record shows | would settle it |",
        "|---|---|---|---|",
    ]
    for one in examined(account):
        shows = f"{one.shows}{_where(one)}".replace("|", "\\|")
        lines.append(f"| {one.weight} | {one.check} | {shows} | {one.settles} |")
    return "\n".join(lines)


def _where(finding: Finding) -> str:
    if not finding.trials:
        return ""
    named = ", ".join(str(number) for number in finding.trials[:SHOWN])
    more = f" and {len(finding.trials) - SHOWN} more" if len(finding.trials) > SHOWN else ""
    return f" (trials {named}{more})" if len(finding.trials) > 1 else f" (trial {named})"


def main() -> None:
    """Write, or with `--check` compare."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    if len(arguments) != 1:
        sys.exit("expected the folder of the published runs: python -m docs.case_study RUNS [--check]")
    written = case_study(Path(arguments[0]))
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(written)
    elif TARGET.read_text() != written:
        sys.exit("docs/case-study.md has drifted; run python -m docs.case_study RUNS")


if __name__ == "__main__":
    main()
