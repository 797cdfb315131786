"""What an auditor writes down of one edit, `domain_observed`: the same in the loop, the command and the verifier."""

import sys

from audit.domains.classify import classify
from audit.domains.report import Change, EditReport
from audit.domains.truth import Truth, undeclared
from ledger.events import DomainObserved, HypothesisProposed
from ledger.parts import decimal
from ledger.recipes import Recipe
from ledger.vocabulary import Role

RULES = 1
"""Rises with every change of the rules that changes an answer."""
CLASSIFIER = f"domains-{RULES}/py{sys.version_info.major}.{sys.version_info.minor}"
"""The syntax tree of a program is one of a version of Python, and so is what is read in it."""
MAX_UNDECLARED = 40
MAX_LINE_CHARS = 300


def observation_of(proposal: HypothesisProposed, parent: Recipe, child: Recipe) -> DomainObserved:
    """What `child` really changes in `parent`, and whether the proposal says so. Executes nothing, never raises."""
    report = classify(parent, child)
    truth = undeclared(report, f"{proposal.hypothesis} {proposal.rationale}", proposal.claimed_domain)
    return observation(report, truth, parent.digest, child.digest)


def observation(report: EditReport, truth: Truth, parent_recipe: str, recipe: str) -> DomainObserved:
    """The event for a comparison that was made already."""
    return DomainObserved(
        method="code",
        classifier=CLASSIFIER,
        parent_recipe=parent_recipe,
        recipe=recipe,
        observed_domain=report.domain,
        shares={domain: decimal(share) for domain, share in report.shares.items()},
        kind=report.kind.value if report.kind is not None else None,
        strict_arch=report.strict_arch,
        undeclared=_listed(truth.undeclared),
        evidence=_evidence(report),
        model=None,
        input_tokens=None,
        output_tokens=None,
        request=None,
        response=None,
    )


def actor_of(body: DomainObserved) -> str:
    """Who says so: the rules or the model, by name and version."""
    return f"{Role.AUDITOR}:{body.classifier}"


def line(text: str) -> str:
    """One printable line for an event, cut with a mark where it is long."""
    shown = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return shown if len(shown) <= MAX_LINE_CHARS else f"{shown[: MAX_LINE_CHARS - 1]}…"


def _listed(changes: tuple[Change, ...]) -> tuple[str, ...]:
    lines = tuple(dict.fromkeys(line(f"{change.domain} {change.file} {change.symbol}") for change in changes))
    more = len(lines) - MAX_UNDECLARED
    return lines if more <= 0 else (*lines[:MAX_UNDECLARED], f"and {more} more")


def _evidence(report: EditReport) -> str:
    if not report.changes:
        return line(report.problems[0] if report.problems else "the program did not change")
    strict = [change for change in report.changes if report.strict_arch and change.strict]
    change = max(strict or [c for c in report.changes if c.domain is report.domain], key=lambda c: c.weight)
    return line(f"{change.file} {change.symbol}: {change.evidence}")
