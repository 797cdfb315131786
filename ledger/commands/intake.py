"""Command `import`: other harnesses' records into a ledger."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.text import Text

from ledger.importers import ImportFault, Outcome, discover, read, take
from ledger.importers.intake import FORMATS
from ledger.importers.record import Run
from ledger.log import EventLog
from ledger.terminal import json_option, ledger_option, plain, screen
from ledger.vocabulary import EVIDENCE_RULES

SHOWN = 5


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@ledger_option
@click.option("--format", "form", type=click.Choice(sorted(FORMATS)), help="Format of the records  [default: detected]")
@click.option("--campaign", help="Name for the campaign, where PATH holds one run  [default: the folder's name]")
@click.option("--dry-run", is_flag=True, help="Show what was understood; write nothing.")
@json_option
def import_command(
    path: Path, ledger: Path, form: str | None, campaign: str | None, dry_run: bool, as_json: bool
) -> None:
    """Import other harnesses' records: each run in PATH becomes a campaign, each record an event with its raw bytes.

    Importing the same bytes again changes nothing.

    Example: labtrail import runs/ --ledger runs.db --dry-run
    """
    found = discover(path, form)
    if campaign is not None and len(found) > 1:
        raise ImportFault(f"{path}: expected one run for --campaign, found {len(found)}")
    # Everything is read before anything is written.
    reading = track(found, "reading", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    runs = [read(one, campaign) for one in reading]
    names = Counter(run.campaign for run in runs)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ImportFault(f"{path}: expected one run a campaign name, found {twice[0]} {names[twice[0]]} times")
    outcomes = [Outcome(run, 0) for run in runs] if dry_run else _append(ledger, runs)
    if as_json:
        click.echo(json.dumps([_record(outcome) for outcome in outcomes], indent=2))
        return
    console = screen()
    for outcome in outcomes:
        for line in _lines(outcome, dry_run):
            console.print(plain(Text(line)), highlight=False)


def _append(ledger: Path, runs: list[Run]) -> list[Outcome]:
    with EventLog.open(ledger) if ledger.exists() else EventLog.create(ledger) as log:
        return [take(log, run) for run in runs]


def _record(outcome: Outcome) -> dict[str, Any]:
    """One run as plain values."""
    run = outcome.run
    trials = list(run.trials)
    verdicts = Counter(trial.label or trial.verdict or "unknown" for trial in trials)
    evidence = Counter(kind for trial in trials for kind in trial.evidence)
    return {
        "campaign": run.campaign,
        "format": run.format,
        "task": run.task.name,
        "metric": run.task.metric,
        "records": sum(len(source.records) for source in run.sources),
        "appended": outcome.appended,
        "sources": {source.name: source.digest for source in run.sources},
        "trials": len(trials),
        "verdicts": {str(name): count for name, count in verdicts.most_common()},
        "evidence": {str(kind): evidence[kind] for kind in EVIDENCE_RULES},
        "repaired": [f"trial {trial.key}: {said}" for trial in trials for said in trial.repaired],
        "unknown": [f"trial {trial.key}: {said}" for trial in trials for said in trial.unknown],
        "differs": [f"trial {trial.key}: {said}" for trial in trials for said in trial.differs],
    }


def _lines(outcome: Outcome, dry_run: bool) -> list[str]:
    said = _record(outcome)
    done = "not written" if dry_run else f"{outcome.appended} new" if outcome.appended else "all in the ledger already"
    lines = [f"{said['campaign']}: {said['task']} ({said['format']}), {said['records']} records, {done}"]
    lines.append(
        f"    {said['trials']} trials: " + ", ".join(f"{count} {name}" for name, count in said["verdicts"].items())
    )
    lacking = [name for name, count in said["evidence"].items() if count == 0]
    if lacking:
        lines.append(f"    no record of: {', '.join(lacking)}")
    for what in ("repaired", "unknown", "differs"):
        if said[what]:
            more = f" (and {len(said[what]) - SHOWN} more)" if len(said[what]) > SHOWN else ""
            lines.append(f"    {what}: {len(said[what])}{more}")
            lines += [f"        {one}" for one in said[what][:SHOWN]]
    return lines
