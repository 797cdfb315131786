"""What a record claims, calculated again, and what in it gives reason to doubt; for campaigns of any origin."""

from audit.claims.account import Account, accounts_of
from audit.claims.checks import Finding, examined
from audit.claims.headline import Headline, headline_of

__all__ = ["Account", "Finding", "Headline", "accounts_of", "examined", "headline_of"]
