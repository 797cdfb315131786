"""What every command shares: options, the console, hostile text made plain, and how a program ends."""

import io
import os
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from ledger.keys import SigningKey, publish
from ledger.vocabulary import Verdict

STYLES = {
    Verdict.BASELINE: "bold",
    Verdict.KEPT: "bold green",
    Verdict.DISCARDED: "dim",
    Verdict.DISQUALIFIED: "yellow",
    Verdict.FAILED: "red",
}

PIECE_CHARS = 2**14

ledger_option = click.option(
    "--ledger", type=click.Path(path_type=Path), default=Path("labtrail.db"), show_default=True, help="The ledger file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def home() -> Path:
    """Where keys live: $LABTRAIL_HOME, or ~/.labtrail."""
    return Path(os.environ.get("LABTRAIL_HOME") or Path.home() / ".labtrail")


def log_key(path: Path | None = None) -> SigningKey:
    """The key that signs heads, made on first use with its public half beside it."""
    path = path or home() / "log.key"
    key = SigningKey.load_or_create(path, "labtrail-log")
    publish(key, path)
    return key


class Screen(Console):
    """A console that leaves a broken pipe to `run`; rich would end the program with exit code 1."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled."""
        raise


def screen() -> Console:
    """Fits a terminal; a file or pipe gets lines as long as they are."""
    console = Screen()
    return console if console.is_terminal else wide()


def wide() -> Console:
    """For files and pipes: lines as long as they are, no colours."""
    return Screen(width=100_000, color_system=None, force_terminal=False)


def emit(text: str) -> None:
    """Write to stdout, in pieces: one large write to a pipe whose reader went away may end short without an error."""
    for start in range(0, len(text), PIECE_CHARS):
        sys.stdout.write(text[start : start + PIECE_CHARS])


def plain(text: Text) -> Text:
    """The same text without control characters: hypotheses and details may come from hostile code."""
    shown = text.copy()
    shown.plain = "".join(char if char.isprintable() else "�" for char in text.plain)
    return shown


def run(group: click.Group, name: str, expected: tuple[type[Exception], ...]) -> None:
    """Run a click group as the program `name`. Exit code 130 after Ctrl-C, 141 where the reader of a pipe went away."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What an encoding such as ASCII lacks is shown by its number.
            stream.reconfigure(errors="backslashreplace")
    try:
        # Not `group.main`: it turns a broken pipe into exit code 1, and an exit code of a command into a return value.
        with group.make_context(name, sys.argv[1:]) as context:
            group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # Python flushes stdout once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except expected as error:
        click.echo(f"{name}: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from None
