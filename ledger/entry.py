"""How a console script ends: expected failures in one line and exit code 2, a bug in a traceback for its report."""

import os
import sys

import click


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
