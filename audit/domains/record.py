"""Appends observations that a ledger does not have yet."""

from collections.abc import Iterator

from audit.domains.observation import CLASSIFIER, actor_of, observation
from audit.domains.observed import DomainAudit
from ledger.events import DomainObserved, Draft
from ledger.log import EventLog


def record(log: EventLog, audit: DomainAudit) -> int:
    """Append what `audit` found in code, one transaction a trial; returns how many were new.

    A trial that these rules have observed already is left alone: after a crash the same call goes on where it stopped.
    Raises LedgerError where the log is not open for writing.
    """
    known = set(_observed(log))
    fresh = [found for found in audit.trials if (found.campaign, found.trial) not in known]
    for found in fresh:
        body = observation(found.report, found.truth, found.parent_recipe, found.recipe)
        log.append([Draft(body, actor_of(body), found.campaign, found.trial)])
    return len(fresh)


def _observed(log: EventLog) -> Iterator[tuple[str | None, int | None]]:
    """(campaign, trial) that these rules have observed."""
    for event in log.events():
        if isinstance(event.body, DomainObserved) and event.body.classifier == CLASSIFIER:
            yield event.campaign, event.trial
