"""The command `audit domains LEDGER`."""

import json
from pathlib import Path

import click

from audit.domains.annotate import annotated
from audit.domains.observed import DomainAudit, Observed, domains_of
from audit.domains.record import record
from ledger.log import EventLog, LedgerError
from ledger.recipes import Recipe


class Unreadable(click.ClickException):
    """What was asked for cannot be read: one line, and not the exit code of a finding."""

    exit_code = 2


@click.command("domains")
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--trial", type=int, help="Explain one trial: its diff, each change annotated.")
@click.option("--record", "write", is_flag=True, help="Append what is found to the ledger, once a trial and version.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(ledger: Path, trial: int | None, write: bool, as_json: bool) -> None:
    """Show what each edit really changed, against what it claimed.

    Reads only; --record appends one event a trial, which views show, and which `audit verify` makes again.
    Exit code 1 where an edit does other things than it says, 2 where the ledger cannot be read.

    Example: audit domains demo.db --trial 3
    """
    try:
        with EventLog.open(ledger) if write else EventLog.read_only(ledger) as log:
            audit = domains_of(log)
            if write:
                click.echo(f"{record(log, audit)} of {len(audit.trials)} edits recorded", err=True)
            chosen = [found for found in audit.trials if trial is None or found.trial == trial]
            if trial is not None and not chosen:
                raise Unreadable(f"{ledger}: expected a trial with a submitted edit, found none with number {trial}")
            if as_json:
                shown = audit.as_dict() if trial is None else [found.as_dict() for found in chosen]
                click.echo(json.dumps(shown, indent=2))
            elif trial is None:
                click.echo(rendered(audit))
            else:
                click.echo("\n\n".join(explained(found, log) for found in chosen))
    except (LedgerError, ValueError) as error:
        raise Unreadable(str(error)) from error
    if any(not found.truth.honest or found.parent is not None for found in chosen):
        raise click.exceptions.Exit(1)


def rendered(audit: DomainAudit) -> str:
    """The whole audit as text: table, strict list, mismatches, undeclared edits."""
    lines = [
        f"{len(audit.trials)} edits, {len(audit.strict)} of them change the model's forward computation structurally"
    ]
    lines += ["", "claimed   observed  edits"]
    lines += [f"{claimed:<9} {observed:<9} {count:>5}" for (claimed, observed), count in sorted(audit.table.items())]
    lines += _section("strict architecture", [_strict(found) for found in audit.strict])
    lines += _section(
        "other surface than claimed",
        [
            f"{_place(found)}: claimed {found.claimed}, found {found.report.domain or 'no change'}"
            for found in audit.mismatches
        ],
    )
    lines += _section("not as declared", [line for found in audit.undeclared for line in _faults(found)])
    lines += _section("not read", list(audit.unread))
    return "\n".join(lines)


def explained(found: Observed, log: EventLog) -> str:
    """One trial in detail: its diff with the surface, kind, symbol and evidence of every change. Raises LedgerError."""
    report = found.report
    shares = ", ".join(f"{domain} {share:.0%}" for domain, share in report.shares.items()) or "no change of meaning"
    lines = [
        f"{_place(found)}: claimed {found.claimed}, observed {shares}",
        f"kind {report.kind or 'none'}, strict architecture {'yes' if report.strict_arch else 'no'}",
        f"hypothesis: {_printable(found.hypothesis)}",
    ]
    parent, recipe = (Recipe.load(digest, log.blob) for digest in (found.parent_recipe, found.recipe))
    lines += ["", *(_printable(line) for line in annotated(parent, recipe, report)), ""]
    return "\n".join([*lines, *report.problems, *_faults(found)])


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"{title}: {len(lines)}", *(f"  {line}" for line in lines)] if lines else []


def _place(found: Observed) -> str:
    return f"{found.campaign} trial {found.trial}"


def _strict(found: Observed) -> str:
    first = found.strict_evidence[0]
    return f"{_place(found)}: {first.file} {first.symbol}, {_printable(first.evidence)}"


def _faults(found: Observed) -> list[str]:
    """Everything in which a trial differs from its declaration, one line each."""
    place, truth = _place(found), found.truth
    lines = [f"{place}: undeclared {c.domain} edit {c.symbol}, {_printable(c.evidence)}" for c in truth.undeclared]
    lines += [f"{place}: announced and not done: {_printable(text)}" for text in truth.absent]
    lines += [f"{place}: outside its surface: {c.file} {c.symbol}" for c in truth.outside]
    lines += [f"{place}: touches measuring code: {c.symbol}, {_printable(c.evidence)}" for c in truth.measuring]
    if found.parent is not None:
        lines.append(
            f"{place}: declared parent {found.parent.declared} differs in {found.parent.distance_declared} lines, "
            f"trial {found.parent.nearest} in {found.parent.distance_nearest}"
        )
    return lines


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
