"""The command `audit claims LEDGER`."""

import json
from pathlib import Path

import click

from audit.claims.account import accounts_of
from audit.claims.checks import Finding, examined
from audit.claims.headline import Headline, headline_of
from ledger.events import EventError
from ledger.log import EventLog, LedgerError

SHOWN = 8
"""Trials of a finding that are named; --json has all."""


class Unreadable(click.ClickException):
    """What was asked for cannot be read: one line, and not the exit code of a finding."""

    exit_code = 2


@click.command("claims")
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--campaign", help="One campaign only  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every trial and line of each finding.")
def command(ledger: Path, campaign: str | None, as_json: bool) -> None:
    """Calculate each campaign's headline again and show what in its record gives reason to doubt.

    It says what the record shows, not what anybody intended. Exit code 0, or 2 where the ledger cannot be read.

    Example: audit claims runs.db
    """
    try:
        with EventLog.read_only(ledger) as log:
            accounts = [account for account in accounts_of(log) if campaign in (None, account.campaign)]
    except (LedgerError, EventError) as error:
        raise Unreadable(" ".join(str(error).split())) from error
    if not accounts:
        raise Unreadable(
            f"{ledger}: expected campaign {campaign}, found none" if campaign else f"{ledger}: no campaign"
        )
    told = [(headline_of(account), examined(account)) for account in accounts]
    if as_json:
        found = [{**head.as_dict(), "findings": [one.as_dict() for one in findings]} for head, findings in told]
        click.echo(json.dumps(found, indent=2))
        return
    for head, findings in told:
        click.echo("\n".join(printable(line) for line in [*headline_lines(head), *finding_lines(findings), ""]))


def headline_lines(head: Headline) -> list[str]:
    """The headline as text."""
    unit = "" if head.unit in ("", "1") else f" {head.unit}"
    lines = [f"{head.campaign} ({head.origin}): {head.task}, {head.trials} trials"]
    if head.change is None or head.baseline is None or head.champion_score is None:
        lines.append(f"  {head.metric}: no baseline or no champion with a score")
    else:
        low_high = "no interval: a spread is missing"
        if head.interval is not None:
            low_high = f"95 % interval {head.interval[0]:+.2%} to {head.interval[1]:+.2%}"
        lines.append(
            f"  {head.metric} {head.baseline:g} -> {head.champion_score:g}{unit} ({head.change:+.2%}; {low_high}), "
            f"champion: trial {head.champion}"
        )
    lines.append("  " + ", ".join(f"{count} {name}" for name, count in head.outcomes.items()))
    lines.append(f"  kept on the champion's path: {head.kept_on_path}, off it: {head.kept_off_path}")
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in head.evidence.items() if share)
    lacking = ", ".join(kind for kind, share in head.evidence.items() if not share)
    lines.append(f"  evidence: {shares}; none of: {lacking or 'nothing is missing'}")
    lines.append(
        f"  auditability {head.auditability:g} of 100 (mean share over {len(head.evidence)} kinds of evidence)"
    )
    return lines


def finding_lines(findings: list[Finding]) -> list[str]:
    """Findings as text, with where they stand and what would settle them."""
    lines: list[str] = []
    for one in findings:
        named = ", ".join(str(number) for number in one.trials[:SHOWN])
        more = f" and {len(one.trials) - SHOWN} more" if len(one.trials) > SHOWN else ""
        where = f" [trial {named}{more}]" if named else ""
        lines.append(f"  {one.weight}: {one.check}: {one.shows}{where}")
        lines.append(f"      would settle it: {one.settles}")
    return lines


def printable(text: str) -> str:
    """The text without control characters: a hostile ledger cannot steer a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)
