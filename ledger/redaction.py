"""What a published copy leaves out: texts and blobs, chosen by trial, field, kind or digest."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger.events import Event
from ledger.log import EventLog
from ledger.parts import Body
from ledger.texts import REDACTABLE, Withheld

KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "logs": {"run_finished": ("log",)},
    "prompts": {"model_called": ("request", "response")},
    "views": {"lineage_viewed": ("view",)},
    "diffs": {"diff_submitted": ("diff", "recipe")},
    "imports": {"record_imported": ("raw",)},
}
"""Kind of blob -> event type -> the fields that name one. With a diff go the recipe files that came with it."""
REPEATING = ("views", "prompts")
"""Kinds that repeat texts of earlier events: they go where any text goes."""
FIELDS = sorted({name for names in REDACTABLE.values() for name in names})
FORMS = f"trial:N, trial:CAMPAIGN/N, field:NAME, blob:DIGEST, texts, {', '.join(KINDS)}"


class RedactionError(ValueError):
    """What is to be left out is not there, or was not understood; the message lists what can be."""


@dataclass(frozen=True)
class Redaction:
    """What to leave out, as somebody asked for it."""

    trials: frozenset[tuple[str | None, int]] = frozenset()
    """(campaign, trial); None for every campaign."""
    fields: frozenset[str] = frozenset()
    """Names of redactable fields."""
    kinds: frozenset[str] = frozenset()
    blobs: frozenset[str] = frozenset()
    """Content digests."""

    @classmethod
    def parse(cls, wishes: Iterable[str]) -> "Redaction":
        """Raises RedactionError for a wish of another form than FORMS."""
        trials, fields, kinds, blobs = set(), set(), set(), set()
        for wish in wishes:
            what, _, value = wish.partition(":")
            campaign, slash, number = value.rpartition("/")
            if what == "trial" and re.fullmatch(r"[0-9]{1,15}", number) and (campaign or not slash):
                trials.add((campaign or None, int(number)))
            elif what == "field" and value in FIELDS:
                fields.add(value)
            elif what == "blob" and re.fullmatch(r"[0-9a-f]{64}", value):
                blobs.add(value)
            elif wish == "texts":
                fields |= set(FIELDS)
            elif wish in KINDS:
                kinds.add(wish)
            elif what == "field":
                raise RedactionError(f"expected a redactable field ({', '.join(FIELDS)}), found {value!r}")
            else:
                raise RedactionError(f"expected one of {FORMS}; found {wish!r}")
        kinds |= set(REPEATING) if trials or fields else set()
        return cls(frozenset(trials), frozenset(fields), frozenset(kinds), frozenset(blobs))

    def takes_trial(self, event: Event) -> bool:
        """Whether the event belongs to a trial that is left out."""
        return event.trial is not None and not self.trials.isdisjoint(
            {(event.campaign, event.trial), (None, event.trial)}
        )

    def takes_text(self, event: Event, name: str) -> bool:
        """Whether the text of this field of the event is left out."""
        return name in self.fields or self.takes_trial(event)


@dataclass
class Plan:
    """What the wishes mean for one ledger."""

    redaction: Redaction
    texts: set[str] = field(default_factory=set)
    """Texts that are left out wherever they stand: a verdict repeats the detail of its failure."""
    blobs: set[str] = field(default_factory=set)

    def takes(self, event: Event, name: str, text: str) -> bool:
        """Whether this text is to be left out."""
        return text in self.texts or self.redaction.takes_text(event, name)


def plan(log: EventLog, redaction: Redaction) -> Plan:
    """Look through the log for what the wishes name. Raises RedactionError where it holds no such trial or blob."""
    made = Plan(redaction, blobs=set(redaction.blobs))
    met: set[tuple[str | None, int]] = set()
    for event in log.events():
        if redaction.takes_trial(event):
            assert event.trial is not None
            met |= {(event.campaign, event.trial), (None, event.trial)}
        for name in REDACTABLE.get(type(event.body), ()):
            text = getattr(event.body, name)
            if redaction.takes_text(event, name) and text and not isinstance(text, Withheld):
                made.texts.add(text)
        made.blobs |= _blobs(event, event.body, redaction)
    for campaign, number in sorted(redaction.trials - met, key=str):
        raise RedactionError(f"{log.path}: no trial {number}" + (f" of campaign {campaign!r}" if campaign else ""))
    known = {digest.hex() for digest, _, _ in log.frames()} if redaction.blobs else set()
    for digest in sorted(redaction.blobs - known):
        raise RedactionError(f"{log.path}: no blob {digest}")
    return made


def _blobs(event: Event, body: Body, redaction: Redaction) -> set[str]:
    """Blobs of this event that are left out."""
    found: set[str] = set()
    whole = redaction.takes_trial(event)
    for kind, types in KINDS.items():
        if whole or kind in redaction.kinds:
            found |= {getattr(body, name) for name in types.get(event.type, ())}
    if whole or ("diffs" in redaction.kinds and event.type == "diff_submitted"):
        found |= set(event.blobs)
    return found
