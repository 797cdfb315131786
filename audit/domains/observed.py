"""`domains_of`: every submitted edit of a ledger, claimed against observed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from audit.domains.ancestry import ParentMismatch, nearest_parent
from audit.domains.classify import classify
from audit.domains.report import Change, EditReport
from audit.domains.truth import Truth, undeclared
from evaluators.task import Contract
from ledger.campaign import Campaign, Trial
from ledger.events import CampaignStarted
from ledger.log import EventLog, LedgerError
from ledger.recipes import Recipe
from ledger.vocabulary import Domain


@dataclass(frozen=True)
class Observed:
    """One trial: what was claimed, what its code shows, and how the two agree."""

    campaign: str
    trial: int
    claimed: Domain
    hypothesis: str
    parent_recipe: str
    recipe: str
    """Digests of the two versions."""
    report: EditReport
    truth: Truth
    parent: ParentMismatch | None

    @property
    def mismatch(self) -> bool:
        """Whether the primary surface is another one than was claimed."""
        return self.report.domain is not self.claimed

    @property
    def strict_evidence(self) -> tuple[Change, ...]:
        """The changes that make it strictly architectural."""
        return tuple(change for change in self.report.changes if change.strict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "campaign": self.campaign,
            "trial": self.trial,
            "claimed_domain": self.claimed,
            "observed_domain": self.report.domain,
            "hypothesis": self.hypothesis,
            "report": self.report.as_dict(),
            "undeclared": [f"{change.symbol}: {change.evidence}" for change in self.truth.undeclared],
            "absent": list(self.truth.absent),
            "outside": [f"{change.symbol}: {change.evidence}" for change in self.truth.outside],
            "measuring": [f"{change.symbol}: {change.evidence}" for change in self.truth.measuring],
            "nearer_parent": self.parent.nearest if self.parent else None,
        }


@dataclass(frozen=True)
class DomainAudit:
    """All trials of a ledger whose code is recorded."""

    trials: tuple[Observed, ...]
    unread: tuple[str, ...] = ()
    """Trials whose code could not be had, one line each."""
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(claimed, observed) -> trials; an edit without meaning is observed as `none`."""

    @property
    def strict(self) -> tuple[Observed, ...]:
        """Trials that changed the model's forward computation structurally."""
        return tuple(trial for trial in self.trials if trial.report.strict_arch)

    @property
    def mismatches(self) -> tuple[Observed, ...]:
        """Trials whose primary surface is not the claimed one."""
        return tuple(trial for trial in self.trials if trial.mismatch)

    @property
    def undeclared(self) -> tuple[Observed, ...]:
        """Trials that did more, less or elsewhere than they said."""
        return tuple(trial for trial in self.trials if not trial.truth.honest or trial.parent is not None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "table": [{"claimed": c, "observed": o, "trials": count} for (c, o), count in sorted(self.table.items())],
            "strict_arch": [trial.trial for trial in self.strict],
            "trials": [trial.as_dict() for trial in self.trials],
            "unread": list(self.unread),
        }


def domains_of(log: EventLog) -> DomainAudit:
    """Classify every submitted edit of the ledger. Reads only; a trial whose code is missing is named in `unread`."""
    found: list[Observed] = []
    unread: list[str] = []
    for campaign in campaigns_of(log):
        contract = _contract(campaign, log)
        versions: dict[int, Recipe] = {}
        for number, trial in sorted(campaign.trials.items()):
            if trial.recipe is None:
                continue
            try:
                recipe = Recipe.load(trial.recipe, log.blob)
                if trial.diff is not None and trial.proposal is not None:
                    found.append(_observed(campaign.id, trial, recipe, versions, contract))
                versions[number] = recipe
            except (LedgerError, ValueError, KeyError) as error:
                unread.append(f"{campaign.id} trial {number}: {error}")
    table = Counter((str(trial.claimed), str(trial.report.domain or "none")) for trial in found)
    return DomainAudit(tuple(found), tuple(unread), table)


def campaigns_of(log: EventLog) -> list[Campaign]:
    """Every campaign of the log, replayed."""
    campaigns: dict[str, Campaign] = {}
    for event in log.events():
        if event.campaign is not None and (event.campaign in campaigns or isinstance(event.body, CampaignStarted)):
            campaigns.setdefault(event.campaign, Campaign(event.campaign)).apply(event)
    return list(campaigns.values())


def _contract(campaign: Campaign, log: EventLog) -> Contract | None:
    """The task's contract, where the ledger holds it in a form that this program reads."""
    epoch = campaign.started.epoch if campaign.started is not None else None
    try:
        return Contract.model_validate_json(log.blob(epoch.task)) if epoch is not None else None
    except (LedgerError, ValueError):
        return None


def _observed(
    campaign: str, trial: Trial, recipe: Recipe, versions: dict[int, Recipe], contract: Contract | None
) -> Observed:
    assert trial.proposal is not None
    proposal = trial.proposal
    report = classify(versions[proposal.parent], recipe)
    said = f"{proposal.hypothesis} {proposal.rationale}"
    surface = set(_surface(contract, proposal.specialist)) or None
    return Observed(
        campaign=campaign,
        trial=trial.number,
        claimed=proposal.claimed_domain,
        hypothesis=proposal.hypothesis,
        parent_recipe=versions[proposal.parent].digest,
        recipe=recipe.digest,
        report=report,
        truth=undeclared(report, said, proposal.claimed_domain, surface),
        parent=nearest_parent(recipe, proposal.parent, versions),
    )


def _surface(contract: Contract | None, specialist: str) -> Iterator[str]:
    """Files that a specialist may edit; nothing where the contract does not know it."""
    for known in contract.specialists if contract is not None else ():
        if known.name == specialist:
            yield from known.files
