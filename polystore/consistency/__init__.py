"""Nothing that was committed is lost: outbox, delivery, retry, recovery, backfill, verify."""

from polystore.consistency.manager import DataConsistencyManager
from polystore.consistency.settings import Settings
from polystore.consistency.tasks import SyncTask

__all__ = ["DataConsistencyManager", "Settings", "SyncTask"]
