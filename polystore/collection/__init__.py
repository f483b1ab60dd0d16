"""The typed view of one entity type, in parts: values and writes, pages, searches, imports, transactions.

`scope.py` is what they share; `typed.py` is the whole of what an application sees.
"""

from polystore.collection.channel import Channel, Subscription
from polystore.collection.limiter import Limiter, rate_of
from polystore.collection.logs import Log
from polystore.collection.scope import KeyValue, Scope, Wiring
from polystore.collection.state import State
from polystore.collection.transaction import Transaction
from polystore.collection.typed import Collection

__all__ = [
    "Channel",
    "Collection",
    "KeyValue",
    "Limiter",
    "Log",
    "Scope",
    "State",
    "Subscription",
    "Transaction",
    "Wiring",
    "rate_of",
]
