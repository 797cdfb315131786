"""The events as JSON Lines, one a line in the order of the log, with their texts in place."""

import json
from pathlib import Path

from ledger.envelope import read_json
from ledger.log import EventLog
from ledger.merkle import leaf_hash
from ledger.store import new_file


def export_jsonl(log: EventLog, target: Path, stop: int) -> str:
    """Write the first `stop` events to a new file. Raises EventError at an entry that is not JSON.

    A line holds the fields of the entry, the texts that stand beside it in their places of the body, and the leaf:
    the hash of the entry as stored, which the line is not.
    """
    count = 0
    with new_file(target) as file:
        for written in log.written(0, stop):
            envelope = read_json(written.entry)
            if written.texts is not None:
                envelope["body"].update(read_json(written.texts))
            envelope["leaf"] = leaf_hash(written.entry).hex()
            file.write(json.dumps(envelope, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            count += 1
    return f"{target}: {count:,} events"
