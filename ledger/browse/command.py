"""Command `browse`."""

from pathlib import Path

import click

from ledger.browse.site import serve
from ledger.terminal import ledger_option


@click.command()
@ledger_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0 takes a free one.")
@click.option("--open", "open_browser", is_flag=True, help="Open a browser on it.")
def browse(ledger: Path, host: str, port: int, open_browser: bool) -> None:
    """Browse a ledger with Datasette: the raw log, and its views as tables that follow a running campaign.

    Example: labtrail browse --ledger demo.db
    """
    raise SystemExit(serve(ledger, host, port, open_browser))
