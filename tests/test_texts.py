"""Redactable texts: the entry commits to them, a copy without them still verifies, and none can be exchanged."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from audit.verify import verify
from ledger import checkpoint
from ledger.bodies import CATALOGUE, CorrectionRecorded, HypothesisProposed, RunStarted
from ledger.events import Draft, EventError, Written, decode, decode_bare, encode
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.proof import check_proof, prove
from ledger.store import expected_schema
from ledger.texts import REDACTABLE, WITHHELD, TextError, Withheld, digest, withheld, withhold
from ledger.views import Views
from tests.campaigns import write_campaign

AT = "2026-01-02T03:04:05.000006Z"
NOTED = CorrectionRecorded(target=0, author="me", reason="because", statement="It was é.")


def written(body: CorrectionRecorded = NOTED) -> Written:
    return encode(Draft(body, "person:me"), 5, AT, "cd" * 32, {})


def test_the_entry_holds_digests_and_never_the_text() -> None:
    entry, texts, salts = written()
    assert b"because" not in entry
    assert texts == '{"reason":"because","statement":"It was é."}'.encode()
    assert salts is not None
    assert digest(salts[:16], "because").encode() in entry
    assert digest(salts[16:], "It was é.").encode() in entry
    assert decode(entry, texts, salts).body == NOTED


def test_the_same_text_has_another_digest_each_time() -> None:
    assert written().salts != written().salts
    assert len({decode_like_stored(written()) for _ in range(20)}) == 20


def decode_like_stored(found: Written) -> bytes:
    return found.entry.partition(b'"body":')[2]


def test_free_texts_are_redactable_and_closed_sets_are_not() -> None:
    assert REDACTABLE[HypothesisProposed] == ("hypothesis", "rationale")
    assert RunStarted not in REDACTABLE
    assert {CATALOGUE[name] for name in ("verdict_reached", "failure_labelled", "trial_rejected")} <= REDACTABLE.keys()


def test_a_withheld_text_leaves_a_mark_and_takes_its_salt_along() -> None:
    entry, texts, salts = written()
    assert texts is not None
    assert salts is not None
    less, left = withhold(texts, salts, lambda field, text: field == "reason")
    event = decode(entry, less.encode(), left)
    assert isinstance(event.body, CorrectionRecorded)
    assert (event.body.reason, event.body.statement) == (WITHHELD, "It was é.")
    assert isinstance(event.body.reason, Withheld)
    assert withheld(event.body) == ("reason",)
    assert left[:16] == bytes(16)
    assert withheld(decode_bare(entry).body) == ("reason", "statement")


BREAKS: dict[str, Callable[[bytes, bytes], tuple[bytes | None, bytes | None]]] = {
    "another text": lambda texts, salts: (texts.replace(b"because", b"becausE"), salts),
    "another salt": lambda texts, salts: (texts, bytes(16) + salts[16:]),
    "a text too few": lambda texts, salts: (b'{"reason":"because"}', salts[:16]),
    "a text too many": lambda texts, salts: (texts[:-1] + b',"more":"x"}', salts + bytes(16)),
    "another order": lambda texts, salts: ('{"statement":"It was é.","reason":"because"}'.encode(), salts),
    "a space": lambda texts, salts: (texts.replace(b":", b": ", 1), salts),
    "an escape": lambda texts, salts: (texts.replace("é".encode(), b"\\u00e9"), salts),
    "a number": lambda texts, salts: (b'{"reason":5,"statement":"It was"}', salts),
    "a key twice": lambda texts, salts: (b'{"reason":"because",' + texts[1:], salts),
    "a salt without its text": lambda texts, salts: (texts.replace(b'"because"', b"null"), salts),
    "not JSON": lambda texts, salts: (b"{", salts),
    "no object": lambda texts, salts: (b"[]", salts),
    "a lone surrogate": lambda texts, salts: (b'{"reason":"\\ud800","statement":""}', salts),
    "nothing": lambda texts, salts: (None, None),
    "no salts": lambda texts, salts: (texts, None),
}


@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_texts_that_do_not_belong_to_the_entry_are_refused(
    change: Callable[[bytes, bytes], tuple[bytes | None, bytes | None]],
) -> None:
    entry, texts, salts = written()
    assert texts is not None
    assert salts is not None
    with pytest.raises(TextError):
        decode(entry, *change(texts, salts))


def test_an_empty_text_is_refused_where_the_type_demands_one() -> None:
    entry, _, salts = written()
    assert salts is not None
    old, new = digest(salts[:16], "because"), digest(salts[:16], "")
    with pytest.raises(TextError, match="field reason: expected a text"):
        decode(entry.replace(old.encode(), new.encode()), '{"reason":"","statement":"It was é."}'.encode(), salts)


def test_an_event_without_texts_has_none_beside_it() -> None:
    run = RunStarted(run=0, seed=7, attempt=0, recipe="ab" * 32, runner="local", isolation="none")
    entry, texts, salts = encode(Draft(run, "runner:local", "c1", 0), 5, AT, "cd" * 32, {})
    assert (texts, salts) == (None, None)
    with pytest.raises(TextError):
        decode(entry, b"{}", b"")


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises((EventError, ValueError)):
        written(CorrectionRecorded(target=0, author="me", reason="\ud800", statement=""))


@pytest.fixture
def redacted(tmp_path: Path) -> Path:
    """A campaign whose hypotheses were dropped from the file, everything else left."""
    path = tmp_path / "ledger.db"
    with EventLog.create(path) as log:
        write_campaign(log, trials=8)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_update")
        rows = connection.execute("SELECT seq, texts, salts FROM events WHERE texts IS NOT NULL").fetchall()
        for seq, texts, salts in rows:
            chosen = withhold(texts, salts, lambda field, text: field in ("hypothesis", "detail"))
            connection.execute("UPDATE events SET texts = ?, salts = ? WHERE seq = ?", (*chosen, seq))
        connection.execute(expected_schema()["events_update"])
    return path


def test_a_ledger_without_its_texts_is_sound_and_the_audit_says_what_is_withheld(redacted: Path) -> None:
    report = verify(redacted)
    assert report.sound, report.findings
    missing = {what for check in report.checks for what in check.not_recorded}
    assert "hypothesis of hypothesis_proposed: withheld" in missing
    assert "the reason of a verdict, or what it repeats: withheld" in missing


def test_views_show_nothing_for_a_withheld_text(redacted: Path) -> None:
    with EventLog.read_only(redacted) as log:
        rows = Views.of(log).query("SELECT hypothesis, rationale FROM trials WHERE trial > 0").rows
        in_sqlite = log.connection.execute(
            "SELECT json_extract(body, '$.hypothesis'), json_extract(body, '$.rationale') FROM log "
            "WHERE type = 'hypothesis_proposed'"
        ).fetchall()
    assert len(rows) == len(in_sqlite) == 8
    assert {hypothesis for hypothesis, _ in [*rows, *in_sqlite]} == {None}
    assert all(rationale is not None for _, rationale in [*rows, *in_sqlite])


def test_a_proof_carries_the_texts_and_works_without_them(redacted: Path, tmp_path: Path) -> None:
    key = SigningKey.create(tmp_path / "log.key", "example.org/log")
    with EventLog.read_only(redacted) as log:
        campaign = Views.of(log).last_campaign()
        proved = check_proof(prove(log, checkpoint.sign(log, key), campaign, 1), key.verifier)
    proposed = next(event.body for event in proved.events if isinstance(event.body, HypothesisProposed))
    assert proposed.hypothesis is WITHHELD
    assert proposed.rationale
