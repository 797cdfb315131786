"""`verify`: one pass over a ledger with every check of three tables; a later check is one more entry in one of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from audit.conduct import Autonomy, Closure, Epochs
from audit.file import LedgerFile
from audit.held import Held
from audit.integrity import Blobs, Hashes, Row, Scan, Tree, check_file, rows
from audit.observations import Observations
from audit.outcome import Labels, Scores, Verdicts
from audit.references import References
from audit.report import Check, Report
from audit.sources import Sources
from audit.trajectory import Case, Contracts, Reconstruction, Rule, Step, Trajectory
from ledger.campaign import Campaign, GrammarError
from ledger.checkpoint import Checkpoint
from ledger.events import CampaignResumed, Event, EventError, RecordImported, decode, decode_bare
from ledger.keys import VerifierKey
from ledger.texts import TextError, withheld

CLOCK_TOLERANCE_S = 5.0
"""How far the writer's clock may step back, as time synchronisation does."""

FILE = ("file", "a whole SQLite file with the tables, indexes and triggers of a ledger, all of them and no other")
SCHEMA = ("schema", "every event is of a known type and version, every field is there and in range")
ORDER = ("order", "every campaign keeps the grammar of a trajectory, and the clock does not run backwards")
SCANS: tuple[type[Scan], ...] = (Hashes, Tree, Blobs)
"""Checks on stored bytes."""
RULES: tuple[type[Rule], ...] = (
    References,
    Sources,
    Reconstruction,
    Contracts,
    Observations,
    Scores,
    Labels,
    Verdicts,
    Closure,
    Epochs,
    Autonomy,
)
"""Checks on decoded events. Reconstruction and Contracts stand before those that use what they find."""

Progress = Callable[[int, int | None], None]
"""Told of events done, and how many there seem to be."""


def verify(
    path: Path,
    evaluator_key: VerifierKey | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Report:
    """Check everything that the ledger file alone can show; reads one snapshot, writes nothing.

    `evaluator_key` pins the key that scores must be signed with; `checkpoint` is a head that was kept elsewhere, which
    the ledger must extend. Raises LedgerError where `path` is no ledger;
    a damaged ledger is a report with findings.
    """
    with LedgerFile.open(path) as file:
        audit = _Audit(Case(file, evaluator_key, checkpoint))
        if check_file(file, audit.file):
            audit.run(progress or (lambda done, total: None))
        else:
            audit.file.missed("everything else: the tables are not those of a ledger")
        return audit.report(path)


@dataclass
class _Audit:
    """The checks of one audit and what they share."""

    case: Case
    file: Check = field(default_factory=lambda: Check(*FILE))
    schema: Check = field(default_factory=lambda: Check(*SCHEMA))
    order: Check = field(default_factory=lambda: Check(*ORDER))
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    latest_at: datetime | None = None

    def __post_init__(self) -> None:
        self.scan_checks = [Check(scan.name, scan.proves) for scan in SCANS]
        self.rule_checks = [Check(rule.name, rule.proves) for rule in RULES]
        self.scans: list[Scan] = [
            scan(self.case.file, check) for scan, check in zip(SCANS, self.scan_checks, strict=True)
        ]
        if self.case.checkpoint is not None:
            self.scan_checks.append(Check(Held.name, Held.proves))
            self.scans.append(Held(self.case.file, self.scan_checks[-1], self.case.checkpoint))
        self.rules = [rule(self.case, check) for rule, check in zip(RULES, self.rule_checks, strict=True)]

    def run(self, progress: Progress) -> None:
        total = self.case.file.expected_size()
        for done, row in enumerate(rows(self.case.file, self.file.fault), start=1):
            for scan in self.scans:
                scan.see(row)
            if (event := self._decoded(row)) is not None:
                self._replay(event)
            if done % 256 == 0:
                progress(done, total)
        for scan in self.scans:
            scan.end()
        for rule in self.rules:
            rule.end()

    def report(self, path: Path) -> Report:
        tree = next(scan for scan in self.scans if isinstance(scan, Tree))
        checks = (self.file, *self.scan_checks, self.schema, self.order, *self.rule_checks)
        confirmed = {check.name: check.confirmed for check in checks}
        return Report(
            path=path,
            size=tree.size,
            root=tree.root.hex(),
            campaigns=len(self.trajectories),
            rebuilt=confirmed[Reconstruction.name],
            recomputed=confirmed[Verdicts.name],
            checks=checks,
            held=None if self.case.checkpoint is None else self.case.checkpoint.size,
        )

    def _decoded(self, row: Row) -> Event | None:
        self.schema.checked += 1
        try:
            try:
                event = decode(row.entry, row.texts, row.salts)
            except TextError as error:
                self.schema.fault(f"event {row.seq}", str(error))
                return decode_bare(row.entry)
            for name in withheld(event.body):
                self.schema.missed(f"{name} of {event.type}: withheld")
            return event
        except EventError as error:
            self.schema.fault(f"event {row.seq}", str(error))
            return None

    def _replay(self, event: Event) -> None:
        trajectory = None
        if event.campaign is not None and not isinstance(event.body, RecordImported):
            trajectory = self.trajectories.setdefault(event.campaign, Trajectory(Campaign(event.campaign)))
        step = Step(event, trajectory)
        for rule in self.rules:
            rule.see(step)
        self._check_clock(event)
        if trajectory is not None:
            self._advance(event, trajectory)

    def _advance(self, event: Event, trajectory: Trajectory) -> None:
        self.order.checked += 1
        try:
            trajectory.state.apply(event)
        except GrammarError as error:
            # What follows a first breach is mostly its consequence.
            if trajectory.broken_at is None:
                trajectory.broken_at = event.seq
                self.order.fault(f"event {event.seq}", str(error))
        if isinstance(event.body, CampaignResumed):
            trajectory.resumed_at = event.seq
        elif event.trial is not None:
            trajectory.touched[event.trial] = event.seq

    def _check_clock(self, event: Event) -> None:
        try:
            at = datetime.fromisoformat(event.recorded_at).astimezone(UTC)
        except ValueError as error:
            self.order.fault(f"event {event.seq}", f"recorded_at {event.recorded_at}: {error}")
            return
        if self.latest_at is not None and (self.latest_at - at).total_seconds() > CLOCK_TOLERANCE_S:
            latest = self.latest_at.isoformat(timespec="microseconds")
            self.order.fault(f"event {event.seq}", f"recorded at {event.recorded_at}, an event before it at {latest}")
            self.latest_at = at
        self.latest_at = max(at, self.latest_at or at)
