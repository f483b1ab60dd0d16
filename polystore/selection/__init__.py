"""Which kind of store suits which data: the decision tree and the matrix, both data, both pure."""

from polystore.selection.matrix import MATRIX, ROLES, Kind, Preference, Row, row_of
from polystore.selection.tree import RULES, Choice, PassedOver, Requirements, Rule, select_database

__all__ = [
    "MATRIX",
    "ROLES",
    "RULES",
    "Choice",
    "Kind",
    "PassedOver",
    "Preference",
    "Requirements",
    "Row",
    "Rule",
    "row_of",
    "select_database",
]
