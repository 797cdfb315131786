"""A catalogue of attacks on a ledger, each found by the check that is there for it, at the place it was made."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.verify import verify
from evaluators.signing import sign
from ledger.bodies import CATALOGUE
from ledger.events import ScoreRecorded, decode
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.merkle import TILE_WIDTH, leaf_hash, root_of
from ledger.parts import Body
from ledger.recipes import digest_of
from ledger.store import expected_schema
from ledger.texts import REDACTABLE, digest
from tests.campaigns import CONTRACT, KEY, write_campaign

Entry = dict[str, Any]
SALT = b"one for all here"
THIEF = SigningKey("toy-evaluator", Ed25519PrivateKey.from_private_bytes(sha256(b"thief").digest()))
KEPT, DISCARDED, DUPLICATE, CRASHED, BELOW_GATE, ABANDONED, RETRIED, UNPARSED = range(1, 9)
"""Trials of the campaign, by what becomes of them."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "toy.db"
    with pytest.MonkeyPatch.context() as patch, EventLog.create(path) as log:
        patch.setattr("ledger.writer.random_salt", lambda: SALT)
        write_campaign(log, trials=8)
    return path


@pytest.fixture
def ledger(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(original, tmp_path / "toy.db"))


class Attacker:
    """Writes to a ledger without asking: the schema is as before when it is done."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA ignore_check_constraints = ON")
        self._triggers = [sql for sql in expected_schema().values() if sql.startswith("CREATE TRIGGER")]
        for sql in self._triggers:
            self.connection.execute(f"DROP TRIGGER {sql.split()[2]}")

    def done(self) -> None:
        for sql in self._triggers:
            self.connection.execute(sql)
        self.connection.close()

    def entries(self) -> list[Entry]:
        """Entries with their texts in place."""
        rows = self.connection.execute("SELECT entry, texts FROM events ORDER BY seq").fetchall()
        entries = [json.loads(entry) for entry, _ in rows]
        for entry, (_, texts) in zip(entries, rows, strict=True):
            entry["body"] |= json.loads(texts or "{}")
        return entries

    def blob(self, content: bytes) -> dict[str, str]:
        """Store it; gives what the event that names it has to commit to."""
        frame = zstandard.compress(content)
        self.connection.execute(
            "INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", (sha256(content).digest(), len(content), frame)
        )
        return {digest_of(content): digest_of(frame)}

    def rehash(self, entries: list[Entry | str]) -> None:
        """Write these events with fresh sequence numbers, chain, tree and head: what an attacker with time does."""
        (prev,) = self.connection.execute("SELECT value FROM meta WHERE key = 'genesis'").fetchone()
        self.connection.execute("BEGIN")
        self.connection.execute("DELETE FROM events")
        leaves: list[bytes] = []
        for seq, entry in enumerate(entries):
            text, texts, salts = (entry, None, None) if isinstance(entry, str) else sealed(entry, seq, prev)
            leaves.append(leaf_hash(text.encode()))
            prev = leaves[-1].hex()
            self.connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (seq, text, leaves[-1], texts, salts))
        assert len(leaves) < TILE_WIDTH
        self.connection.execute("UPDATE head SET size = ?, root = ?", (len(leaves), root_of(leaves)))
        self.connection.execute("COMMIT")


def dumped(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))


def sealed(entry: Entry, seq: int, prev: str) -> tuple[str, str | None, bytes | None]:
    """The entry at its place, with fresh digests for its texts."""
    names = REDACTABLE.get(CATALOGUE.get(entry["type"], Body), ())
    texts = {name: entry["body"][name] for name in names if isinstance(entry["body"].get(name), str)}
    body = {**entry["body"], **{name: digest(SALT, text) for name, text in texts.items()}}
    text = dumped({**entry, "seq": seq, "prev": prev, "body": body})
    return (text, dumped(texts), SALT * len(texts)) if names else (text, None, None)


def find(entries: list[Entry], type_: str, trial: int | None = None, nth: int = 0) -> Entry:
    found = [entry for entry in entries if entry["type"] == type_ and trial in (None, entry["trial"])]
    return found[nth]


def places(path: Path) -> list[tuple[str, str]]:
    report = verify(path)
    assert not report.sound
    return [(finding.check, finding.place) for finding in report.findings if finding.is_fault]


# --- attacks without new hashes ------------------------------------------------------------------------------

STATEMENTS = [
    # (name, check, place, SQL; triggers are off while it runs and back afterwards)
    ("entry edited", "hashes", "event 7", "UPDATE events SET entry = replace(entry, 'toy-1', 'toy-9') WHERE seq = 7"),
    ("leaf edited", "hashes", "event 7", "UPDATE events SET leaf = randomblob(32) WHERE seq = 7"),
    ("leaf of another event", "hashes", "event 7",
     "UPDATE events SET leaf = (SELECT leaf FROM events WHERE seq = 8) WHERE seq = 7"),
    ("event deleted", "hashes", "event 7", "DELETE FROM events WHERE seq = 7"),
    ("first event deleted", "hashes", "event 0", "DELETE FROM events WHERE seq = 0"),
    ("events deleted", "hashes", "events 7 to 11", "DELETE FROM events WHERE seq BETWEEN 7 AND 11"),
    ("last event deleted", "tree", "head", "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)"),
    ("all events deleted", "tree", "head", "DELETE FROM events"),
    ("event renumbered", "hashes", "event 7", "UPDATE events SET seq = 5000 WHERE seq = 7"),
    ("all events renumbered", "hashes", "events 0 to 99999", "UPDATE events SET seq = seq + 100000"),
    ("events swapped", "hashes", "event 7",
     "UPDATE events SET seq = 5000 WHERE seq = 7; UPDATE events SET seq = 7 WHERE seq = 8;"
     "UPDATE events SET seq = 8 WHERE seq = 5000"),
    ("event added at the end", "hashes", "event 5000",
     "INSERT INTO events (seq, entry, leaf) SELECT 5000, replace(entry, json_extract(entry, '$.id'), 'new'), leaf "
     "FROM events WHERE seq = 7"),
    ("head too large", "tree", "head", "UPDATE head SET size = size + 1"),
    ("head with another root", "tree", "head", "UPDATE head SET root = randomblob(32)"),
    ("head deleted", "tree", "head", "DELETE FROM head"),
    ("node invented", "tree", "tree node 0 of level 1", "INSERT INTO nodes VALUES (1, 0, randomblob(32))"),
    ("blob deleted", "blobs", "blob", "DELETE FROM blobs WHERE rowid = 5"),
    ("blob of a diff deleted", "references", "event",
     "DELETE FROM blobs WHERE digest = (SELECT unhexed FROM diff)"),
    ("blob added", "blobs", "blob 00", "INSERT INTO blobs VALUES (zeroblob(32), 1, zeroblob(9))"),
    ("frames swapped", "blobs", "blob",
     "UPDATE blobs SET frame = (SELECT frame FROM blobs WHERE rowid = 6) WHERE rowid = 5"),
    ("blob renamed", "blobs", "blob ", "UPDATE blobs SET digest = randomblob(32) WHERE rowid = 5"),
    ("blob resized", "blobs", "blob ", "UPDATE blobs SET size = size + 1 WHERE rowid = 5"),
    ("origin edited", "file", "meta", "UPDATE meta SET value = 'labtrail/other' WHERE key = 'origin'"),
    ("genesis edited", "file", "meta", "UPDATE meta SET value = printf('%064d', 0) WHERE key = 'genesis'"),
    ("meta deleted", "file", "meta", "DELETE FROM meta WHERE key = 'origin'"),
    ("meta added", "file", "meta", "INSERT INTO meta VALUES ('owner', 'thief')"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "check", "place", "sql"), STATEMENTS, ids=[row[0] for row in STATEMENTS])
def test_a_changed_row_is_found(ledger: Path, name: str, check: str, place: str, sql: str) -> None:
    attacker = Attacker(ledger)
    diff = next(entry["body"]["diff"] for entry in attacker.entries() if entry["type"] == "diff_submitted")
    attacker.connection.executescript(sql.replace("(SELECT unhexed FROM diff)", f"x'{diff}'"))
    attacker.done()
    assert any(found[0] == check and found[1].startswith(place) for found in places(ledger))


SCHEMAS = [
    ("trigger dropped", "trigger events_update", "DROP TRIGGER events_update"),
    ("trigger weakened", "trigger events_delete",
     "DROP TRIGGER events_delete; CREATE TRIGGER events_delete BEFORE DELETE ON events WHEN 0 BEGIN SELECT 1; END"),
    ("trigger added", "trigger hide", "CREATE TRIGGER hide AFTER INSERT ON events BEGIN SELECT 1; END"),
    ("view added", "view trials", "CREATE VIEW trials AS SELECT 'kept' AS verdict"),
    ("table added", "table scores", "CREATE TABLE scores (trial INTEGER)"),
    ("index dropped", "index events_id", "DROP INDEX events_id"),
    ("view forged", "view log", "DROP VIEW log; CREATE VIEW log AS SELECT * FROM events WHERE seq <> 7"),
    ("index loosened", "index events_id", "DROP INDEX events_id; CREATE INDEX events_id ON events (id)"),
    ("table replaced", "table head", "DROP TABLE head; CREATE TABLE head (only INTEGER, size INTEGER, root BLOB)"),
    ("events are a view", "table events",
     "DROP VIEW log; ALTER TABLE events RENAME TO real; CREATE VIEW events AS SELECT * FROM real"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "place", "sql"), SCHEMAS, ids=[row[0] for row in SCHEMAS])
def test_a_changed_schema_is_found(ledger: Path, name: str, place: str, sql: str) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.executescript(sql)
    assert ("file", place) in places(ledger)


def test_statistics_are_noted_and_allowed(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("ANALYZE")
        connection.commit()
    report = verify(ledger)
    assert report.sound
    assert [finding.place for finding in report.findings] == ["table sqlite_stat1"]


def test_an_index_that_lies_about_ids_is_found(ledger: Path) -> None:
    attacker = Attacker(ledger)
    (sql,) = attacker.connection.execute("SELECT sql FROM sqlite_master WHERE name = 'events_id'").fetchone()
    attacker.connection.executescript("DROP INDEX events_id; CREATE INDEX events_id ON events (id)")
    entries = attacker.entries()
    entries[8]["id"] = entries[7]["id"]
    attacker.rehash([*entries])
    attacker.connection.execute("PRAGMA writable_schema = ON")
    attacker.connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'events_id'", (sql,))
    attacker.done()
    assert ("file", "file") in places(ledger)


def test_meta_and_genesis_edited_together_break_the_chain(ledger: Path) -> None:
    attacker = Attacker(ledger)
    genesis = sha256(b'{"format":"2","origin":"thief"}').hexdigest()
    attacker.connection.execute("UPDATE meta SET value = 'thief' WHERE key = 'origin'")
    attacker.connection.execute("UPDATE meta SET value = ? WHERE key = 'genesis'", (genesis,))
    attacker.done()
    assert places(ledger) == [("hashes", "event 0")]


def test_an_event_rehashed_alone_breaks_the_chain(ledger: Path) -> None:
    attacker = Attacker(ledger)
    entry = dumped({**attacker.entries()[7], "actor": "person:thief"})
    attacker.connection.execute(
        "UPDATE events SET entry = ?, leaf = ? WHERE seq = 7", (entry, leaf_hash(entry.encode()))
    )
    attacker.done()
    assert [place for place in places(ledger) if place[0] in ("hashes", "tree")] == [
        ("hashes", "event 8"),
        ("tree", "head"),
    ]


def test_the_same_content_in_another_frame_is_found(ledger: Path) -> None:
    attacker = Attacker(ledger)
    rowid, content = attacker.connection.execute("SELECT rowid, frame FROM blobs LIMIT 1").fetchone()
    frame = zstandard.compress(zstandard.decompress(content), level=19)
    if frame == content:
        frame += b"\x50\x2a\x4d\x18\x00\x00\x00\x00"
    attacker.connection.execute("UPDATE blobs SET frame = ? WHERE rowid = ?", (frame, rowid))
    attacker.done()
    assert [check for check, _ in places(ledger)] == ["blobs"]


# --- attacks with new hashes: only meaning can give them away --------------------------------------------------


@dataclass
class Plan:
    """What an attacker changes before computing every hash anew."""

    attacker: Attacker
    entries: list[Entry]

    def body(self, type_: str, trial: int | None = None, nth: int = 0) -> Entry:
        body: Entry = find(self.entries, type_, trial, nth)["body"]
        return body

    def drop(self, type_: str, trial: int, nth: int = 0) -> None:
        self.entries.remove(find(self.entries, type_, trial, nth))

    def store(self, entry: Entry, content: bytes) -> str:
        entry["blobs"] = {**entry["blobs"], **self.attacker.blob(content)}
        return digest_of(content)

    def sign_again(self, key: SigningKey = KEY) -> None:
        """Sign every score with `key` over what it says now."""
        for entry in self.entries:
            if entry["type"] == "score_recorded":
                score = decode(dumped(entry).encode()).body
                assert isinstance(score, ScoreRecorded)
                entry["body"]["signature"] = sign(key, entry["campaign"], entry["trial"], score)


Attack = Callable[[Plan], None]
ATTACKS: list[tuple[str, str, Attack]] = []


def attack(check: str) -> Callable[[Attack], Attack]:
    """Register an attack with the check that has to find it."""

    def register(function: Attack) -> Attack:
        ATTACKS.append((function.__name__, check, function))
        return function

    return register


@attack("scores")
def better_score(plan: Plan) -> None:
    plan.body("score_recorded", DISCARDED)["metrics"]["val_loss"] = "0.5"


@attack("scores")
def score_signed_with_another_key(plan: Plan) -> None:
    plan.body("score_recorded", DISCARDED)["metrics"]["val_loss"] = "0.5"
    plan.sign_again(THIEF)


@attack("scores")
def score_of_another_trial(plan: Plan) -> None:
    plan.body("score_recorded", DISCARDED)["metrics"] = plan.body("score_recorded", KEPT)["metrics"]


@attack("scores")
def more_trust(plan: Plan) -> None:
    plan.body("score_recorded", KEPT)["trust"] = "witnessed"


@attack("scores")
def facts_that_the_score_does_not_repeat(plan: Plan) -> None:
    plan.body("run_finished", KEPT)["train"]["cpu_s"] = 0.5


@attack("scores")
def score_that_does_not_repeat_the_facts(plan: Plan) -> None:
    plan.body("score_recorded", KEPT)["metrics"]["artifact_bytes"] = "1.0"
    plan.sign_again()


@attack("scores")
def score_after_a_broken_budget(plan: Plan) -> None:
    for type_, name in (("run_finished", "wall_s"),):
        plan.body(type_, KEPT)["train"][name] = CONTRACT.budgets.train_s + 3
    plan.body("score_recorded", KEPT)["metrics"]["train_wall_s"] = repr(CONTRACT.budgets.train_s + 3)
    plan.sign_again()


@attack("scores")
def score_after_a_crash(plan: Plan) -> None:
    plan.body("run_finished", KEPT)["train"]["exit_code"] = 1


@attack("scores")
def the_same_seed_twice(plan: Plan) -> None:
    for type_ in ("run_started", "score_recorded"):
        plan.body(type_, KEPT, 1)["seed"] = plan.body(type_, KEPT, 0)["seed"]
    plan.sign_again()


@attack("scores")
def the_evaluators_key_replaced(plan: Plan) -> None:
    plan.body("campaign_started")["evaluator_key"] = str(THIEF.verifier)


@attack("recipes")
def diff_replaced(plan: Plan) -> None:
    entry = find(plan.entries, "diff_submitted", KEPT)
    entry["body"]["diff"] = plan.store(entry, b"")


@attack("recipes")
def diff_that_does_not_apply(plan: Plan) -> None:
    entry = find(plan.entries, "diff_submitted", KEPT)
    patch = b"diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-no such line\n+x\n"
    entry["body"]["diff"] = plan.store(entry, patch)


@attack("recipes")
def diff_that_is_no_text(plan: Plan) -> None:
    entry = find(plan.entries, "diff_submitted", KEPT)
    entry["body"]["diff"] = plan.store(entry, b"\xff\xfe")


@attack("recipes")
def diff_that_leaves_the_recipe(plan: Plan) -> None:
    entry = find(plan.entries, "diff_submitted", KEPT)
    patch = b"diff --git a/../x.py b/../x.py\nnew file mode 100644\n--- /dev/null\n+++ b/../x.py\n@@ -0,0 +1 @@\n+x\n"
    entry["body"]["diff"] = plan.store(entry, patch)


@attack("recipes")
def program_relabelled(plan: Plan) -> None:
    plan.body("diff_submitted", KEPT)["program"] = "0" * 64


@attack("recipes")
def changed_file_left_out(plan: Plan) -> None:
    plan.body("diff_submitted", KEPT)["files"] = []


@attack("recipes")
def another_recipe_said_to_have_run(plan: Plan) -> None:
    for entry in plan.entries:
        if entry["trial"] == DISCARDED and "recipe" in entry["body"]:
            entry["body"]["recipe"] = plan.body("campaign_started")["recipe"]
    plan.sign_again()


@attack("order")
def another_recipe_in_one_run(plan: Plan) -> None:
    plan.body("run_started", KEPT)["recipe"] = plan.body("campaign_started")["recipe"]


@attack("order")
def another_parent_of_the_hypothesis(plan: Plan) -> None:
    plan.body("hypothesis_proposed", DISCARDED)["parent"] = 0


@attack("order")
def another_parent(plan: Plan) -> None:
    for type_ in ("hypothesis_proposed", "diff_submitted"):
        plan.body(type_, DISCARDED)["parent"] = 0


@attack("order")
def a_parent_that_there_is_not(plan: Plan) -> None:
    plan.body("diff_submitted", DISCARDED)["parent"] = 999


@attack("order")
def a_crashed_parent(plan: Plan) -> None:
    plan.body("hypothesis_proposed", BELOW_GATE)["parent"] = CRASHED


@attack("order")
def failure_deleted(plan: Plan) -> None:
    plan.drop("failure_labelled", CRASHED)


@attack("order")
def trial_deleted(plan: Plan) -> None:
    plan.entries[:] = [entry for entry in plan.entries if entry["trial"] != CRASHED]


@attack("order")
def retried_run_deleted(plan: Plan) -> None:
    for type_ in ("run_started", "run_finished", "failure_labelled"):
        plan.drop(type_, RETRIED)


@attack("order")
def abandoned_trial_hidden(plan: Plan) -> None:
    plan.drop("score_recorded", ABANDONED)
    plan.drop("trial_abandoned", ABANDONED)
    plan.drop("run_finished", ABANDONED)
    plan.body("campaign_stopped")["trials"] += 1
    stop = find(plan.entries, "campaign_stopped")
    plan.entries.append(
        {**find(plan.entries, "verdict_reached", DISCARDED), "id": "x", "trial": ABANDONED, "blobs": {}}
    )
    plan.entries.append({**stop, "id": "y"})


@attack("order")
def another_champion(plan: Plan) -> None:
    plan.body("verdict_reached", DISCARDED)["champion"] = 0


@attack("order")
def verdict_twice(plan: Plan) -> None:
    at = plan.entries.index(find(plan.entries, "verdict_reached", DISCARDED))
    plan.entries.insert(at + 1, {**plan.entries[at], "id": "again"})


@attack("order")
def view_of_the_future(plan: Plan) -> None:
    plan.body("lineage_viewed")["as_of"] = 10_000


@attack("order")
def hypothesis_without_session(plan: Plan) -> None:
    plan.body("hypothesis_proposed", KEPT)["session"] = "no such session"


@attack("order")
def event_after_the_stop(plan: Plan) -> None:
    plan.entries.append({**find(plan.entries, "session_started"), "id": "late"})


@attack("order")
def event_moved_up(plan: Plan) -> None:
    plan.entries.insert(20, plan.entries.pop(21))


@attack("order")
def timestamp_moved_back(plan: Plan) -> None:
    entry = plan.entries[30]
    moved = datetime.fromisoformat(entry["recorded_at"]) - timedelta(hours=1)
    entry["recorded_at"] = moved.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@attack("order")
def timestamp_moved_on(plan: Plan) -> None:
    entry = plan.entries[30]
    moved = datetime.fromisoformat(entry["recorded_at"]) + timedelta(hours=1)
    entry["recorded_at"] = moved.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@attack("closure")
def abandonment_deleted(plan: Plan) -> None:
    plan.drop("trial_abandoned", ABANDONED)


@attack("closure")
def session_left_open(plan: Plan) -> None:
    plan.entries.remove(find(plan.entries, "session_ended"))


@attack("references")
def view_deleted(plan: Plan) -> None:
    plan.entries.remove(find(plan.entries, "lineage_viewed"))


@attack("labels")
def crash_relabelled(plan: Plan) -> None:
    plan.body("failure_labelled", CRASHED)["label"] = "out_of_memory"
    plan.body("verdict_reached", CRASHED)["label"] = "out_of_memory"


@attack("labels")
def crash_called_a_fault_of_the_machine(plan: Plan) -> None:
    plan.body("failure_labelled", CRASHED)["label"] = "infra_error"
    plan.drop("verdict_reached", CRASHED)


@attack("labels")
def rejection_relabelled(plan: Plan) -> None:
    plan.body("trial_rejected", DUPLICATE)["label"] = "forbidden_edit"
    plan.body("verdict_reached", DUPLICATE)["label"] = "forbidden_edit"


@attack("labels")
def rejection_of_a_legal_trial(plan: Plan) -> None:
    for type_ in ("run_started", "run_finished", "failure_labelled"):
        plan.drop(type_, CRASHED)
    rejection = find(plan.entries, "trial_rejected", DUPLICATE)
    verdict = find(plan.entries, "verdict_reached", CRASHED)
    plan.entries.insert(plan.entries.index(verdict), {**rejection, "id": "new", "trial": CRASHED})
    for field in ("label", "reason"):
        verdict["body"][field] = plan.body("verdict_reached", DUPLICATE)[field]


@attack("labels")
def refused_trial_run_all_the_same(plan: Plan) -> None:
    at = plan.entries.index(find(plan.entries, "trial_rejected", UNPARSED))
    run = find(plan.entries, "run_started", CRASHED)
    recipe = plan.body("diff_submitted", UNPARSED)["recipe"]
    plan.entries[at] = {**run, "id": "new", "trial": UNPARSED, "body": {**run["body"], "recipe": recipe}}


@attack("labels")
def gate_relabelled(plan: Plan) -> None:
    plan.body("failure_labelled", BELOW_GATE)["label"] = "causality_violation"
    plan.body("verdict_reached", BELOW_GATE)["label"] = "causality_violation"


@attack("labels")
def gate_invented(plan: Plan) -> None:
    at = plan.entries.index(find(plan.entries, "verdict_reached", DISCARDED))
    plan.entries.insert(at, {**find(plan.entries, "failure_labelled", BELOW_GATE), "id": "new", "trial": DISCARDED})


@attack("labels")
def specialist_that_there_is_not(plan: Plan) -> None:
    plan.body("hypothesis_proposed", KEPT)["specialist"] = "nobody"


@attack("verdicts")
def discarded_trial_kept(plan: Plan) -> None:
    plan.body("verdict_reached", DISCARDED)["verdict"] = "kept"


@attack("verdicts")
def kept_trial_discarded(plan: Plan) -> None:
    plan.body("verdict_reached", KEPT)["verdict"] = "discarded"


@attack("verdicts")
def gate_overlooked(plan: Plan) -> None:
    plan.drop("failure_labelled", BELOW_GATE)


@attack("verdicts")
def run_left_out(plan: Plan) -> None:
    for type_ in ("run_started", "run_finished", "score_recorded"):
        plan.drop(type_, DISCARDED, 1)


@attack("verdicts")
def smaller_p_value(plan: Plan) -> None:
    plan.body("verdict_reached", RETRIED)["p_value"] = "0.001"


@attack("verdicts")
def larger_gain(plan: Plan) -> None:
    plan.body("verdict_reached", KEPT)["gain"] = "1.0"


@attack("verdicts")
def better_mean(plan: Plan) -> None:
    plan.body("verdict_reached", KEPT)["score"]["mean"] = "1.0"


@attack("verdicts")
def worse_baseline(plan: Plan) -> None:
    plan.body("baseline_measured")["score"]["mean"] = "9.0"


@attack("verdicts")
def another_reason(plan: Plan) -> None:
    plan.body("verdict_reached", KEPT)["reason"] = "because"


@attack("verdicts")
def trials_not_counted(plan: Plan) -> None:
    plan.body("campaign_stopped")["trials"] = 3


@attack("epochs")
def score_of_another_epoch(plan: Plan) -> None:
    plan.body("score_recorded", KEPT)["epoch"]["data"] = "0" * 64
    plan.sign_again()


@attack("contracts")
def contract_replaced(plan: Plan) -> None:
    started = find(plan.entries, "campaign_started")
    loose = CONTRACT.model_copy(update={"name": "loose"})
    digest = plan.store(started, loose.blob)
    for entry in plan.entries:
        if "epoch" in entry["body"]:
            entry["body"]["epoch"]["task"] = digest
    plan.sign_again()


@attack("contracts")
def contract_that_is_none(plan: Plan) -> None:
    plan.body("campaign_started")["epoch"]["task"] = plan.body("campaign_started")["recipe"]


@attack("contracts")
def contract_missing(plan: Plan) -> None:
    plan.body("campaign_started")["epoch"]["task"] = "0" * 64


@attack("contracts")
def direction_turned_round(plan: Plan) -> None:
    plan.body("campaign_started")["direction"] = "maximize"


@attack("contracts")
def key_that_is_none(plan: Plan) -> None:
    plan.body("campaign_started")["evaluator_key"] = "toy+00000000+AAAA"


@attack("references")
def view_that_is_not_there(plan: Plan) -> None:
    plan.body("lineage_viewed")["view"] = "0" * 64


@attack("references")
def log_that_is_not_there(plan: Plan) -> None:
    plan.body("run_finished", CRASHED)["log"] = "0" * 64


@attack("blobs")
def blob_stored_twice(plan: Plan) -> None:
    plan.entries[-1]["blobs"] = plan.entries[0]["blobs"]


@attack("blobs")
def blob_not_committed_to(plan: Plan) -> None:
    find(plan.entries, "diff_submitted", KEPT)["blobs"] = {}


@attack("schema")
def unknown_type(plan: Plan) -> None:
    plan.entries[-1]["type"] = "campaign_praised"


@attack("schema")
def unknown_version(plan: Plan) -> None:
    plan.entries[-1]["version"] = 99


@attack("schema")
def unknown_field(plan: Plan) -> None:
    plan.entries[-1]["body"]["note"] = "trust me"


@attack("schema")
def missing_field(plan: Plan) -> None:
    del plan.entries[-1]["body"]["detail"]


@attack("schema")
def actor_without_role(plan: Plan) -> None:
    plan.entries[5]["actor"] = "somebody"


@attack("schema")
def score_that_is_not_a_number(plan: Plan) -> None:
    plan.body("score_recorded", KEPT)["metrics"]["val_loss"] = "nan"


@attack("schema")
def moment_that_there_is_not(plan: Plan) -> None:
    plan.entries[5]["recorded_at"] = "2026-13-45T00:00:00.000000Z"


@pytest.mark.parametrize(("name", "check", "change"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_a_change_with_fresh_hashes_is_found_by_what_it_says(
    ledger: Path, name: str, check: str, change: Attack
) -> None:
    attacker = Attacker(ledger)
    plan = Plan(attacker, attacker.entries())
    change(plan)
    attacker.rehash([*plan.entries])
    attacker.done()
    found = {found_by for found_by, _ in places(ledger)}
    assert check in found
    assert not found & {"file", "hashes", "tree"}


def test_rehashing_without_a_change_is_no_change(original: Path, ledger: Path) -> None:
    attacker = Attacker(ledger)
    attacker.rehash([*attacker.entries()])
    attacker.done()
    assert verify(ledger).findings == ()
    assert verify(ledger).root == verify(original).root


def test_everything_signed_again_by_a_thief_is_found_with_a_pinned_key(ledger: Path) -> None:
    attacker = Attacker(ledger)
    plan = Plan(attacker, attacker.entries())
    plan.body("campaign_started")["evaluator_key"] = str(THIEF.verifier)
    plan.sign_again(THIEF)
    attacker.rehash([*plan.entries])
    attacker.done()
    assert verify(ledger).sound
    assert {"contracts", "scores"} <= {finding.check for finding in verify(ledger, KEY.verifier).findings}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda text: text.replace('{"seq"', '{ "seq"', 1), "hashes"),
        (lambda text: text.replace('"version":1', '"version":1,"version":1', 1), "schema"),
        (lambda text: text.replace('"wall_s":60.0', '"wall_s":1e999'), "schema"),
        (lambda text: text.replace('"wall_s":60.0', '"wall_s":-1.0'), "schema"),
    ],
)
def test_an_entry_that_no_labtrail_writes_is_found(ledger: Path, change: Callable[[str], str], check: str) -> None:
    attacker = Attacker(ledger)
    entries = attacker.entries()
    attacker.rehash([*entries[:-1], change(dumped(entries[-1]))])
    attacker.done()
    assert (check, f"event {len(entries) - 1}") in places(ledger)


@pytest.mark.slow
def test_of_events_deleted_and_rehashed_only_those_that_decide_nothing_go_unseen(
    original: Path, tmp_path: Path
) -> None:
    """A held checkpoint shows these as well; inside the file nothing hangs on them. The one score is of a trial that
    was abandoned.
    """
    work = tmp_path / "work.db"
    with closing(sqlite3.connect(original)) as connection:
        types = [type_ for (type_,) in connection.execute("SELECT type FROM log ORDER BY seq")]
    unseen: list[str] = []
    for seq, type_ in enumerate(types):
        shutil.copyfile(original, work)
        attacker = Attacker(work)
        entries = attacker.entries()
        del entries[seq]
        attacker.rehash([*entries])
        attacker.done()
        if verify(work).sound:
            unseen.append(type_)
    assert unseen == ["score_recorded", "campaign_resumed", "campaign_stopped"]
