"""Which kind of store suits which data (the decision tree, the matrix), where an entity type lives, and why."""

from polystore.selection.explain import as_builtins, explanation
from polystore.selection.matrix import MATRIX, ROLES, Kind, Preference, Row, row_of
from polystore.selection.placement import Candidate, place
from polystore.selection.remembered import Remembered, reconcile, vectors_made_of
from polystore.selection.tree import RULES, Choice, PassedOver, Requirements, Rule, select_database

__all__ = [
    "MATRIX",
    "ROLES",
    "RULES",
    "Candidate",
    "Choice",
    "Kind",
    "PassedOver",
    "Preference",
    "Remembered",
    "Requirements",
    "Row",
    "Rule",
    "as_builtins",
    "explanation",
    "place",
    "reconcile",
    "row_of",
    "select_database",
    "vectors_made_of",
]
