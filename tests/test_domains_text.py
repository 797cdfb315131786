"""Labels from text: the accuracy on the annotated half, and records that say little."""

import json
import os
from pathlib import Path

import pytest

from audit.domains import label_text
from ledger.vocabulary import Domain

DATA = Path(os.environ.get("LABTRAIL_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def records(run: str) -> dict[str, dict[str, str]]:
    """Rows of a published run by experiment number; a field may hold anything but tabs and line ends."""
    lines = (DATA / "published-runs" / run / "blackboard" / "results.tsv").read_text().split("\n")
    head = lines[0].split("\t")
    rows = [dict(zip(head, line.split("\t"), strict=False)) for line in lines[1:] if line.strip()]
    return {row["exp_id"]: row for row in rows}


@pytest.mark.skipif(not (DATA / "arch-labels-dev.jsonl").exists(), reason="the annotated records are not here")
def test_kind_and_strictness_agree_with_the_annotators() -> None:
    labels = [json.loads(line) for line in (DATA / "arch-labels-dev.jsonl").read_text().splitlines()]
    runs = {run: records(run) for run in {label["run"] for label in labels}}
    kinds = stricts = 0
    for label in labels:
        row = runs[label["run"]][label["exp_id"]]
        found = label_text(row["hypothesis"], row.get("notes", ""), row["domain"])
        kinds += found.kind in label["kind"]
        stricts += found.strict_arch in label["strict_arch"]
    assert kinds / len(labels) >= 0.88
    assert stricts / len(labels) >= 0.92


@pytest.mark.parametrize(
    ("hypothesis", "claimed", "domain", "kind"),
    [
        ("Widen the MLP: mlp_mult 3 -> 4.", "arch", Domain.ARCH, "dimensional"),
        ("Add a learnable gate on the attention output.", "arch", Domain.ARCH, "structural"),
        ("Initialise the residual scale at 0.1 instead of 0.", "arch", Domain.ARCH, "scalar"),
        ("Raise the Muon learning rate from 0.02 to 0.03.", "opt", Domain.OPT, "scalar"),
        ("Weight decay 0.1 -> 0.2.", "opt", Domain.REG, "scalar"),
        ("Multi-token prediction loss as an auxiliary training objective.", "arch", Domain.LOSS, "structural"),
    ],
)
def test_plain_sentences_are_read(hypothesis: str, claimed: str, domain: Domain, kind: str) -> None:
    label = label_text(hypothesis, "", claimed)
    assert (label.kind, label.domain) == (kind, domain)


def test_an_empty_record_gives_the_claim() -> None:
    label = label_text("", "", "quant")
    assert (label.domain, label.kind, label.strict_arch) == (Domain.QUANT, "scalar", False)
    assert 0.0 <= label.confidence <= 1.0
    assert label_text("", "", None).confidence <= 1.0


def test_labelling_is_deterministic() -> None:
    assert label_text("Swap ReLU for GELU", "one line", "arch") == label_text("Swap ReLU for GELU", "one line", "arch")
