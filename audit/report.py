"""What an audit says: checks and what each proves, findings with their place, and what the ledger does not show."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from audit.file import WithheldBlob

MAX_KEPT = 1000
"""Findings kept of one check; a file of garbage must not fill the memory of whoever looks at it."""


class Severity(StrEnum):
    """What a finding means for the ledger."""

    ERROR = "error"
    """The ledger does not hold together: it is not sound."""
    NOTE = "note"
    """Allowed, and a reader should know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found, at one place. Free of control characters: a hostile ledger cannot steer a terminal."""

    check: str
    severity: Severity
    place: str
    message: str

    @property
    def is_fault(self) -> bool:
        """Whether it makes the ledger unsound."""
        return self.severity is Severity.ERROR

    def __str__(self) -> str:
        return f"{self.severity}: {self.check}: {self.place}: {self.message}"


@dataclass
class Check:
    """One check as it goes on: how much it looked at, what it found, what nobody could decide from the ledger."""

    name: str
    proves: str
    checked: int = 0
    confirmed: int = 0
    """Where single things are calculated again: how many came out as recorded."""
    findings: list[Finding] = field(default_factory=list)
    errors: int = 0
    notes: int = 0
    not_recorded: Counter[str] = field(default_factory=Counter)
    """What the ledger does not show -> how often it was missed."""

    def fault(self, place: str, message: str) -> None:
        """The ledger contradicts itself here."""
        self.errors += 1
        self._keep(Severity.ERROR, place, message)

    def note(self, place: str, message: str) -> None:
        """Allowed, and worth a reader's attention."""
        self.notes += 1
        self._keep(Severity.NOTE, place, message)

    def compare(self, place: str, what: str, calculated: object, said: object, witness: str = "the event") -> bool:
        """Whether both values are equal; a fault that shows both where they are not."""
        if calculated == said:
            return True
        self.fault(place, f"{what}: calculated {calculated}, {witness} says {said}")
        return False

    def unreadable(self, place: str, what: str, error: Exception) -> None:
        """A blob cannot be had: a fault, unless it is withheld from this copy."""
        if isinstance(error, WithheldBlob):
            self.missed(f"{what}: withheld")
        else:
            self.fault(place, f"{what}: {error}")

    def missed(self, what: str) -> None:
        """Something that the ledger does not show."""
        self.not_recorded[what] += 1

    def _keep(self, severity: Severity, place: str, message: str) -> None:
        if len(self.findings) < MAX_KEPT:
            self.findings.append(Finding(self.name, severity, _printable(place), _printable(message)))


@dataclass(frozen=True)
class Report:
    """The whole audit of one ledger."""

    path: Path
    size: int
    """Events that were found."""
    root: str
    """Tree hash calculated over them, hexadecimal; empty where it could not be calculated."""
    campaigns: int
    rebuilt: int
    """Trials whose recipe came out of parent and diff as recorded, the starting recipes included."""
    recomputed: int
    """Verdicts that came out as recorded."""
    checks: tuple[Check, ...]
    held: int | None = None
    """Events of the held checkpoint that the ledger was compared with, if any."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Errors and notes of all checks, in the order of the checks."""
        return tuple(finding for check in self.checks for finding in check.findings)

    @property
    def errors(self) -> int:
        """Findings that make the ledger unsound."""
        return sum(check.errors for check in self.checks)

    @property
    def sound(self) -> bool:
        """Whether nothing was found, notes aside."""
        return self.errors == 0

    @property
    def _about_the_tail(self) -> str:
        if self.held is None:
            return "Not shown by this file alone: that no tail was cut (compare the head with a checkpoint)"
        return f"It extends the checkpoint over {_count(self.held, 'event')}"

    @property
    def _about_the_rest(self) -> str:
        said = [
            item for check in self.checks if check.name in ("schema", "blobs") for item in check.not_recorded.items()
        ]
        withheld = sum(times for what, times in said if what.endswith(": withheld"))
        return f". Withheld from this copy: {withheld:,} texts or blobs" if withheld else ""

    @property
    def conclusion(self) -> str:
        """One line that a person can quote."""
        found = f"{_count(self.size, 'event')} of {_count(self.campaigns, 'campaign')}"
        if self.sound:
            return (
                f"SOUND: {found}, head {self.size} {self.root}; {_count(self.rebuilt, 'recipe')} rebuilt, "
                f"{_count(self.recomputed, 'verdict')} recomputed. "
                f"{self._about_the_tail}{self._about_the_rest}"
            )
        broken = [check.name for check in self.checks if check.errors]
        return f"NOT SOUND: {_count(self.errors, 'finding')} in {found}, by the checks {', '.join(broken)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "ledger": str(self.path),
            "sound": self.sound,
            "conclusion": self.conclusion,
            "size": self.size,
            "root": self.root,
            "campaigns": self.campaigns,
            "rebuilt": self.rebuilt,
            "recomputed": self.recomputed,
            "checks": [
                {
                    "name": check.name,
                    "proves": check.proves,
                    "checked": check.checked,
                    "errors": check.errors,
                    "notes": check.notes,
                    "not_recorded": dict(check.not_recorded),
                    "findings": [
                        {"severity": finding.severity, "place": finding.place, "message": finding.message}
                        for finding in check.findings
                    ],
                }
                for check in self.checks
            ],
        }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
