"""What every command shares: options, the console, hostile text made plain, and how a program ends."""

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


def screen() -> Console:
    """Fits a terminal; a file or pipe gets lines as long as they are."""
    console = Console()
    return console if console.is_terminal else Console(width=100_000)


def plain(text: Text) -> Text:
    """The same text without control characters: hypotheses and details may come from hostile code."""
    shown = text.copy()
    shown.plain = "".join(char if char.isprintable() else "�" for char in text.plain)
    return shown


def run(group: click.Group, name: str, expected: tuple[type[Exception], ...]) -> None:
    """Run a click group as the program `name`. Exit code 130 after Ctrl-C, 141 where the reader of a pipe went away."""
    try:
        group.main(prog_name=name, standalone_mode=False)
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
