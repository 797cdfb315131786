"""What an edit really changed: surfaces, kinds, undeclared edits, from code and from text."""

from audit.domains.ancestry import nearest_parent
from audit.domains.classify import classify, same_program
from audit.domains.command import command
from audit.domains.observation import observation_of
from audit.domains.observed import DomainAudit, domains_of
from audit.domains.report import EditReport
from audit.domains.text import label_text
from audit.domains.truth import undeclared

__all__ = [
    "DomainAudit",
    "EditReport",
    "classify",
    "command",
    "domains_of",
    "label_text",
    "nearest_parent",
    "observation_of",
    "same_program",
    "undeclared",
]
