"""All benchmarks in one go: `python -m benchmarks`."""

import importlib

import click

SUITES = ("loop", "ledger", "views", "domains", "verdicts")


@click.command()
@click.option("--quick", is_flag=True, help="Smaller sizes, for a look.")
def main(quick: bool) -> None:
    """Run every suite and print figures beside their peers.

    Example: python -m benchmarks --quick
    """
    for name in SUITES:
        click.echo(f"\n=== {name} ===")
        suite = importlib.import_module(f"benchmarks.{name}")
        suite.main(["--quick"] if quick else [], standalone_mode=False)


if __name__ == "__main__":
    main()
