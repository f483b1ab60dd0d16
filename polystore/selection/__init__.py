"""Which kind of store suits which data (the decision tree, the matrix), where an entity type lives, and why."""

from polystore.selection.beside import kind_of
from polystore.selection.cached import with_cache, with_caches
from polystore.selection.candidate import Candidate
from polystore.selection.explain import as_builtins, explanation
from polystore.selection.matrix import MATRIX, ROLES, Kind, Preference, Row, row_of
from polystore.selection.placement import place
from polystore.selection.remembered import Remembered, reconcile, reconcile_alone
from polystore.selection.state import live_state_store
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
    "kind_of",
    "live_state_store",
    "place",
    "reconcile",
    "reconcile_alone",
    "row_of",
    "select_database",
    "with_cache",
    "with_caches",
]
