"""The catalogue of program edits that the offline specialist draws from."""

from agents.edits.catalogue import edits
from agents.edits.edit import FAMILIES, Edit, Family, Operator, apply_all

__all__ = ["FAMILIES", "Edit", "Family", "Operator", "apply_all", "edits"]
