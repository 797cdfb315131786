"""Domain audit: accuracy on our corpus and on annotated records, and seconds for a 1,500-line pair."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import click

from audit.domains import classify, label_text, undeclared
from ledger.recipes import Recipe
from tests.test_domains_corpus import CORPUS, EDITS, MEANT
from tests.test_domains_text import DATA, records


@click.command()
@click.option("--quick", is_flag=True, help="The same: the whole takes seconds.")
def main(quick: bool) -> None:
    """Accuracy on the corpus of labelled edits and on the development labels, and the time of a long pair.

    Example: python -m benchmarks.domains
    """
    reports = {edit.id: classify(edit.old, edit.new) for edit in EDITS}
    _say("corpus, primary domain", [reports[edit.id].domain == edit.domain for edit in EDITS])
    _say("corpus, strict_arch", [reports[edit.id].strict_arch is edit.strict for edit in EDITS])
    _say("corpus, kind", [(reports[edit.id].kind or "none") == edit.kind for edit in EDITS])
    quiet = [undeclared(reports[edit.id], edit.says, edit.claims).undeclared for edit in MEANT]
    named = [[f"{change.symbol} {change.evidence}".replace("-", "_") for change in changes] for changes in quiet]
    hidden = [[name.replace("-", "_") for name in edit.hidden] for edit in MEANT]
    pairs = list(zip(named, hidden, strict=True))
    _say("undeclared, recall", [any(name in text for text in texts) for texts, names in pairs for name in names])
    _say("undeclared, precision", [any(name in text for name in names) for texts, names in pairs for text in texts])
    if (DATA / "arch-labels-dev.jsonl").exists():
        _text(DATA / "arch-labels-dev.jsonl")
    seconds = _seconds()
    click.echo(f"1,500-line pair: {seconds:.3f} s of CPU, best of 5; {seconds / 0.5:.2f} of the goal of 0.5 s")


def _text(path: Path) -> None:
    labels = [json.loads(line) for line in path.read_text().splitlines()]
    runs = {run: records(run) for run in {label["run"] for label in labels}}
    rows = [(label, runs[label["run"]][label["exp_id"]]) for label in labels]
    found = [(label, label_text(row["hypothesis"], row.get("notes", ""), row["domain"])) for label, row in rows]
    _say("text, domain", [guess.domain in label["domain"] for label, guess in found])
    _say("text, kind", [guess.kind in label["kind"] for label, guess in found])
    _say("text, strict_arch", [guess.strict_arch in label["strict_arch"] for label, guess in found])


def _seconds() -> float:
    text = (CORPUS / "gpt" / "train_gpt.py").read_text()
    extra = (CORPUS / "conv" / "train.py").read_text() + (CORPUS / "quant" / "export.py").read_text()
    old = Recipe({"train_gpt.py": text, "extra.py": extra})
    new = Recipe({"train_gpt.py": text.replace('"ROPE_DIMS", 16', '"ROPE_DIMS", 32'), "extra.py": extra})
    times = []
    for _ in range(5):
        start = time.process_time()
        classify(old, new)
        times.append(time.process_time() - start)
    return min(times)


def _say(what: str, hits: Iterable[bool]) -> None:
    found = list(hits)
    click.echo(f"{what}: {sum(found)} of {len(found)} = {sum(found) / len(found):.3f}")


if __name__ == "__main__":
    main()
