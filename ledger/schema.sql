-- The ledger on disk: append-only events, their blobs, and the nodes of the Merkle tree over the events.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- `entry` holds the exact bytes that `leaf` hashes; `id` and `prev` are computed from it and cannot disagree with it.
-- These two are all that the triggers need: every further computed column would be computed twice for each insert.
-- `texts` holds the redactable texts of the body as {field: text}, `salts` 16 bytes for each of them: the entry says
-- SHA-256(salt || text) instead. In a copy a text may be null, withheld, and its salt zero.
CREATE TABLE events (
  seq   INTEGER PRIMARY KEY CHECK (seq >= 0),
  entry TEXT NOT NULL,
  leaf  BLOB NOT NULL CHECK (length(leaf) = 32),
  texts TEXT,
  salts BLOB CHECK ((salts IS NULL) = (texts IS NULL)),
  id    TEXT NOT NULL GENERATED ALWAYS AS (json_extract(entry, '$.id')) VIRTUAL,
  prev  TEXT NOT NULL GENERATED ALWAYS AS (json_extract(entry, '$.prev')) VIRTUAL,
  CHECK (json_extract(entry, '$.seq') IS seq)
) STRICT;

CREATE UNIQUE INDEX events_id ON events (id);

-- The fields that people ask for, read from the entry; a text that is withheld is left out of the body.
CREATE VIEW log AS
SELECT
  seq,
  json_extract(entry, '$.type') AS type,
  json_extract(entry, '$.version') AS version,
  json_extract(entry, '$.campaign') AS campaign,
  json_extract(entry, '$.trial') AS trial,
  json_extract(entry, '$.actor') AS actor,
  json_extract(entry, '$.recorded_at') AS recorded_at,
  CASE WHEN texts IS NULL THEN json_extract(entry, '$.body') ELSE json_patch(json_extract(entry, '$.body'), texts) END
    AS body,
  id
FROM events;

-- Content-addressed bytes: `digest` is SHA-256 of the content, `frame` its zstd compression.
-- The event that first names a blob commits to SHA-256 of the frame. In a copy a frame may be null, withheld.
CREATE TABLE blobs (
  digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
  size   INTEGER NOT NULL CHECK (size >= 0),
  frame  BLOB CHECK (frame IS NOT NULL OR size = 0)
) STRICT;

-- Node `idx` of level k covers leaves idx * 256^k up to (idx + 1) * 256^k; complete nodes of levels >= 1 only.
CREATE TABLE nodes (
  level INTEGER NOT NULL CHECK (level >= 1),
  idx   INTEGER NOT NULL CHECK (idx >= 0),
  hash  BLOB NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE head (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  size INTEGER NOT NULL CHECK (size >= 0),
  root BLOB NOT NULL CHECK (length(root) = 32)
) STRICT;

-- The triggers stop accidents; the tree and its checkpoints show attacks.
-- Demanding the next seq, a new id and the previous leaf also stops INSERT OR REPLACE, which walks past DELETE triggers.
CREATE TRIGGER events_insert BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq) + 1, 0) FROM events)
  OR EXISTS (SELECT 1 FROM events WHERE id = NEW.id)
  OR NEW.prev IS NOT coalesce(
    (SELECT lower(hex(leaf)) FROM events WHERE seq = NEW.seq - 1),
    (SELECT value FROM meta WHERE key = 'genesis'))
BEGIN SELECT RAISE(ABORT, 'append-only: an event must follow the last one'); END;

CREATE TRIGGER events_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'append-only: events are never changed'); END;

CREATE TRIGGER events_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'append-only: events are never deleted'); END;

CREATE TRIGGER blobs_insert BEFORE INSERT ON blobs
WHEN EXISTS (SELECT 1 FROM blobs WHERE digest = NEW.digest)
BEGIN SELECT RAISE(ABORT, 'append-only: the blob is stored already'); END;

CREATE TRIGGER blobs_update BEFORE UPDATE ON blobs
BEGIN SELECT RAISE(ABORT, 'append-only: blobs are never changed'); END;

CREATE TRIGGER blobs_delete BEFORE DELETE ON blobs
BEGIN SELECT RAISE(ABORT, 'append-only: blobs are never deleted'); END;

CREATE TRIGGER nodes_insert BEFORE INSERT ON nodes
WHEN EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND idx = NEW.idx)
BEGIN SELECT RAISE(ABORT, 'append-only: the node is stored already'); END;

CREATE TRIGGER nodes_update BEFORE UPDATE ON nodes
BEGIN SELECT RAISE(ABORT, 'append-only: nodes are never changed'); END;

CREATE TRIGGER nodes_delete BEFORE DELETE ON nodes
BEGIN SELECT RAISE(ABORT, 'append-only: nodes are never deleted'); END;

CREATE TRIGGER head_update BEFORE UPDATE ON head WHEN NEW.size <= OLD.size
BEGIN SELECT RAISE(ABORT, 'append-only: the head only grows'); END;

CREATE TRIGGER head_insert BEFORE INSERT ON head WHEN EXISTS (SELECT 1 FROM head)
BEGIN SELECT RAISE(ABORT, 'append-only: there is one head'); END;

CREATE TRIGGER head_delete BEFORE DELETE ON head
BEGIN SELECT RAISE(ABORT, 'append-only: the head only grows'); END;

CREATE TRIGGER meta_insert BEFORE INSERT ON meta WHEN EXISTS (SELECT 1 FROM head)
BEGIN SELECT RAISE(ABORT, 'append-only: meta is fixed at creation'); END;

CREATE TRIGGER meta_update BEFORE UPDATE ON meta
BEGIN SELECT RAISE(ABORT, 'append-only: meta is fixed at creation'); END;

CREATE TRIGGER meta_delete BEFORE DELETE ON meta
BEGIN SELECT RAISE(ABORT, 'append-only: meta is fixed at creation'); END;
