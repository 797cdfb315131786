"""Other harnesses' records -> events: every record byte for byte, and what it says about its trial."""

from ledger.importers.intake import Found, Outcome, discover, read, take
from ledger.importers.record import ImportFault

__all__ = ["Found", "ImportFault", "Outcome", "discover", "read", "take"]
