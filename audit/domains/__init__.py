"""What an edit really changed: surfaces, kinds, undeclared edits, from code and from text."""

from audit.domains.classify import classify, same_program
from audit.domains.report import Change, EditReport, Kind

__all__ = ["Change", "EditReport", "Kind", "classify", "same_program"]
