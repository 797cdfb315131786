"""Datasette on a ledger: the raw log beside its views."""

from ledger.browse.site import BrowseError, serve

__all__ = ["BrowseError", "serve"]
