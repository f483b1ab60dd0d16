"""polystore beside an application that uses SQLAlchemy: its own tables as entities, its own sessions as writers.

capture           what its sessions write is followed, without another line of code
install_trigger   what anybody writes to its tables is followed, by the database itself
entity_of         an entity from a `Table` without a class
table             polystore's own tables in the application's queries
"""

from polystore.sqlalchemy.capturing import Sessions, capture
from polystore.sqlalchemy.joining import Join, JoinedTransaction
from polystore.sqlalchemy.tables import entity_of, install_trigger, remove_trigger, table

__all__ = [
    "Join",
    "JoinedTransaction",
    "Sessions",
    "capture",
    "entity_of",
    "install_trigger",
    "remove_trigger",
    "table",
]
