"""Every digest in an event that names a blob names one that is in the ledger, and no blob is there without a name."""

import json
from collections.abc import Mapping
from typing import ClassVar

from audit.file import UNREADABLE, BlobError, WithheldBlob
from audit.report import Check
from audit.trajectory import Case, Rule, Step
from ledger.events import CampaignResumed, CampaignStarted

BLOBS: dict[str, tuple[str, ...]] = {
    "diff_submitted": ("diff",),
    "domain_observed": ("request", "response"),
    "lineage_viewed": ("view",),
    "model_called": ("request", "response"),
    "record_imported": ("raw", "attachments"),
    "run_finished": ("log",),
}
"""Event type -> fields of its body that name a blob, or several by name."""
RECIPES: dict[str, tuple[str, ...]] = {
    "baseline_measured": ("recipe",),
    "campaign_started": ("recipe",),
    "certification_recorded": ("recipe",),
    "diff_submitted": ("parent_recipe", "recipe"),
    "domain_observed": ("parent_recipe", "recipe"),
    "run_started": ("recipe",),
    "score_recorded": ("recipe",),
}
"""Fields that name the manifest of a recipe: it and all its files are blobs."""
NOT_STORED: dict[str, tuple[str, ...]] = {
    "certification_recorded": ("artifacts",),
    "checkpoint_signed": ("root",),
    "diff_submitted": ("program",),
    "record_imported": ("source_digest",),
    "run_finished": ("artifact",),
    "score_recorded": ("artifact",),
}
"""Digests of things that a ledger does not hold."""


class References(Rule):
    """Presence only: that a blob's content is what its digest says, the check of the blobs shows."""

    name: ClassVar[str] = "references"
    proves: ClassVar[str] = (
        "every blob that an event names is there (recipes, diffs, logs, views, model calls), and no other"
    )

    def __init__(self, case: Case, check: Check) -> None:
        super().__init__(case, check)
        self._blind = False
        """A manifest is withheld: which blobs it lists nobody can tell."""
        self._whole: set[str] = set()
        """Recipes whose manifest and files are all there."""
        self._named: set[bytes] = set()
        """Binary digests that were named and found: the one set over all blobs that an audit holds, 100 bytes each."""

    def see(self, step: Step) -> None:
        body = step.event.body
        if isinstance(body, CampaignStarted | CampaignResumed):
            self._expect(step, "task", body.epoch.task)
        for field in BLOBS.get(step.event.type, ()):
            named = getattr(body, field)
            for digest in named.values() if isinstance(named, Mapping) else [named]:
                if digest is not None:
                    self._expect(step, field, digest)
        for field in RECIPES.get(step.event.type, ()):
            if (digest := getattr(body, field)) is not None:
                self._expect_recipe(step, field, digest)
        if step.event.type == "run_finished" and getattr(body, "artifact", None) is not None:
            self._check.missed("trained artifacts and predictions: a digest of the artifact is all there is")

    def end(self) -> None:
        """A blob without a name is what is left of a deleted event."""
        if self._blind:
            return
        try:
            for (digest,) in self._file.connection.execute("SELECT digest FROM blobs ORDER BY rowid"):
                if digest not in self._named:
                    shown = digest.hex() if isinstance(digest, bytes) else digest
                    self._check.fault(f"blob {shown}", "expected an event that names it, found none")
        except UNREADABLE as error:
            self._check.fault("blobs", f"the blobs cannot be listed: {error}")

    def _expect(self, step: Step, field: str, digest: str) -> bool:
        self._check.checked += 1
        binary = bytes.fromhex(digest)
        if binary in self._named:
            return True
        try:
            if self._file.holds(digest):
                self._named.add(binary)
                return True
            self._check.fault(step.place, f"{field}: expected blob {digest}, it is not in the ledger")
        except BlobError as error:
            self._check.fault(step.place, f"{field}: blob {digest}: {error}")
        return False

    def _expect_recipe(self, step: Step, field: str, digest: str) -> None:
        if digest in self._whole or not self._expect(step, field, digest):
            return
        try:
            listed = json.loads(self._file.blob(digest))
            files = {str(path): bytes.fromhex(content).hex() for path, content in listed.items()}
        except WithheldBlob:
            self._check.missed("the files of a manifest: withheld")
            self._blind = True
            return
        except (BlobError, ValueError, AttributeError, TypeError) as error:
            self._check.fault(step.place, f"{field}: expected blob {digest} to be a manifest: {error}")
            return
        found = [self._expect(step, f"{field}, file {path}", content) for path, content in files.items()]
        if all(found):
            self._whole.add(digest)
