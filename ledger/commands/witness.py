"""Command `witness`: cosign the heads of a log that others write, on another machine."""

from hashlib import sha256
from pathlib import Path

import click

from ledger.checkpoint import Checkpoint, CheckpointError, current, read, sidecar
from ledger.keys import KeyFault, SigningKey, VerifierKey, publish
from ledger.log import EventLog
from ledger.store import write_whole
from ledger.terminal import home
from ledger.witness import Request, cosign, request, seen


@click.command("witness")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--log-key", required=True, metavar="KEY", help="The log's public key, or a file with it.")
@click.option("--key", type=click.Path(path_type=Path), help="The witness's key  [default: ~/.labtrail/witness.key]")
@click.option("--memory", type=click.Path(path_type=Path), help="Folder of the heads it saw  [default: beside the key]")
@click.option("--out", type=click.Path(path_type=Path), help="The cosigned checkpoint  [default: stdout]")
def witness_command(source: Path, log_key: str, key: Path | None, memory: Path | None, out: Path | None) -> None:
    """Cosign the head in SOURCE where it extends the last one that this witness saw.

    SOURCE is what `labtrail checkpoint --since SIZE` wrote, or a ledger with its checkpoint beside it. A head that is
    older or does not extend the last one is refused.

    Example: labtrail witness head.request --log-key log.pub --out demo.db.checkpoint
    """
    key = key or home() / "witness.key"
    signer = SigningKey.load_or_create(key, "labtrail-witness")
    publish(signer, key)
    folder = memory or key.with_suffix(".seen")
    asked = _asked(source, signer, folder)
    note = cosign(asked, _key(log_key), signer, _memory(folder, Checkpoint.parse(asked.note.text)))
    if out is None:
        click.echo(str(note), nl=False)
        return
    write_whole(out, str(note).encode())
    click.echo(f"{out}: {Checkpoint.parse(note.text).size} events, cosigned by {signer.name}")


def _asked(source: Path, signer: SigningKey, folder: Path) -> Request:
    with source.open("rb") as file:
        content = file.read(2**18)
    if not content.startswith(b"SQLite format 3\0"):
        try:
            return Request.parse(content)
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from error
    note = read(sidecar(source))
    with EventLog.read_only(source) as log:
        last = seen(_memory(folder, current(log)), signer)
        # Where the witness saw more than the note says, the answer is its refusal, not a proof.
        size = Checkpoint.parse(note.text).size
        return request(log, note, min(last.size, size) if last else 0)


def _memory(folder: Path, checkpoint: Checkpoint) -> Path:
    """One file for each log; an origin is not a file name."""
    return folder / f"{sha256(checkpoint.origin.encode()).hexdigest()[:32]}.checkpoint"


def _key(text: str) -> VerifierKey:
    try:
        return VerifierKey.parse(text if "+" in text else Path(text).read_text().strip())
    except UnicodeDecodeError as error:
        raise KeyFault(f"{text}: expected a public key") from error
